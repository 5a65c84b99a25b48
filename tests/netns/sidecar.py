"""A proxy on the client's host that intercepts, its rules, and the listening proxy on the server's host."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from harness.hosts import USER, Net, as_user
from harness.proxies import COMMAND, Keys, Proxy

WIRE = 7443
"""Where the listening proxy is."""
PORT = 5000
"""Where the server is, on its own address."""
BOTH = f'match: ":{PORT}"'


class Sidecar:
    """Both proxies and the rules; a context manager.

    Args:
        net: the hosts.
        folder: for keys, configuration and logs.
        how: redirect or tproxy.
        routes: as YAML, each without what all have in common; by default the server's port, on any address.
        settings: further lines of the tunnel.
        more: further tunnels, as YAML.
        to: where the listening proxy hands on to.
        allow_targets: the original destination that it may hand on to, where `to` is `original`.
        listen: further settings of the listening tunnel then, each with a comma in front.
        at: where the routes look for the listening proxy; its number unless said.
        user: who runs the proxy with redirect, where no privilege is needed.
        spared: whom the rules leave alone; the same unless said.
        group: a folder of cgroup v2 in which the proxy runs. The rules recognise the proxy by it.
    """

    def __init__(
        self,
        net: Net,
        folder: Path,
        how: str,
        *,
        routes: tuple[str, ...] = (BOTH,),
        settings: str = "",
        more: str = "",
        to: str = f"127.0.0.1:{PORT}",
        at: str | None = None,
        allow_targets: str = "",
        listen: str = "",
        user: int = USER,
        spared: int | None = None,
        group: Path | None = None,
    ) -> None:
        self.net, self.folder, self.how = net, folder, how
        self._user = user
        self._group = group
        self._spared = user if spared is None else spared
        keys = Keys(folder)
        self._home = tempfile.TemporaryDirectory(prefix="stcp-")  # where another user can get at it
        home = Path(self._home.name)
        self.config = home / "client.yaml"
        lines = "".join(f'      - {{{route}, to: "{at or net.server.ip4}:{WIRE}"}}\n' for route in routes)
        head = f"identity: client.key\npeers: {{server: '{keys.server.public}'}}\ntunnels:\n  out:\n"
        tunnel = f"    mode: connect\n    bind: localhost:15001\n    intercept: {how}\n    peer: server\n    dial_timeout: 3s\n"
        self.config.write_text(f"{head}{tunnel}{settings}    routes:\n{lines}{more}")
        shutil.copy(folder / "client.key", home)
        if how == "redirect":
            for path in (home, home / "client.key"):
                shutil.chown(path, user, user)
        arguments = ["listen", "--bind", f":{WIRE}", "--to", to, *keys.listen()]
        if allow_targets:
            arguments = ["run", str(folder / "server.yaml")]
            rules = f'bind: ":{WIRE}", to: "{to}", allow: "{keys.client.public}", allow_targets: "{allow_targets}"{listen}'
            (folder / "server.yaml").write_text(f"identity: server.key\ntunnels: {{in: {{mode: listen, {rules}}}}}\n")
        self.listen = Proxy(arguments, log=folder / "listen.log", place=net.server.place())
        self.listen.ready()
        self.start()
        self.rules("--apply")

    def start(self, *arguments: str, log: str = "connect.log") -> None:
        """Start the intercepting proxy.

        Args:
            arguments: further ones.
            log: the name of its log.
        """
        user = self._user if self.how == "redirect" else None
        client = self.net.client
        if self._group is None:
            self.connect = Proxy(["run", str(self.config), *arguments], log=self.folder / log, place=client.place(user))
        else:
            group = ("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self._group))
            prefix = (*client.prefix, *group, *(as_user(user) if user is not None else ()))
            self.connect = Proxy(["run", str(self.config), *arguments], log=self.folder / log, prefix=prefix)
        self.connect.ready()

    def rules(self, *arguments: str) -> str:
        """`stcp-proxy intercept` on the client's host; what it said."""
        uid = ["--uid", str(self._spared)] if self.how == "redirect" else []
        if self._group is None:
            done = self.net.client.product("intercept", str(self.config), *uid, *arguments)
        else:  # nft looks for it below /sys/fs/cgroup
            group = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /sys/fs/cgroup && exec "$@"', str(self._group.parent)]
            uid += ["--cgroup", self._group.name]
            done = self.net.client.run(*group, *COMMAND, "intercept", str(self.config), *uid, *arguments)
        return done.stdout + done.stderr

    def __enter__(self) -> Sidecar:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.rules("--remove")
        finally:
            self.connect.stop()
            self.listen.stop()
            self._home.cleanup()
