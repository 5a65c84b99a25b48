"""The product's two commands in real processes, their keys, and a pair of them.

No log of any process started here may hold a secret: every one is searched for all of them when it stops.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.leaks import find_secret, forbid
from harness.process import Process, wait_for
from stcp_proxy.keys import PrivateKey, format_private_key, format_psk, generate_psk, write_secret_file

COMMAND = shlex.split(os.environ.get("STCP_PROXY", "")) or [sys.executable, "-m", "stcp_proxy"]


def times(lines: list[dict[str, Any]]) -> int:
    """How many events the lines stand for."""
    return sum(line.get("times", 1) for line in lines)


@dataclass
class Keys:
    """Key files for both sides, or one shared secret.

    Attributes:
        folder: where the files are.
        psk: whether it is the shared secret that both sides use.
    """

    folder: Path
    psk: bool = False

    def __post_init__(self) -> None:
        self.server, self.client, self.stranger = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate()
        self.secret, self.other_secret = generate_psk(), generate_psk()
        for name, key in (("server", self.server), ("client", self.client), ("stranger", self.stranger)):
            forbid(key.secret)
            write_secret_file(self.folder / f"{name}.key", format_private_key(key) + "\n")
        for name, secret in (("shared", self.secret), ("other", self.other_secret)):
            forbid(secret)
            write_secret_file(self.folder / f"{name}.psk", format_psk(secret) + "\n")

    def add(self, name: str) -> PrivateKey:
        """One key more, in the file NAME.key."""
        key = PrivateKey.generate()
        forbid(key.secret)
        write_secret_file(self.folder / f"{name}.key", format_private_key(key) + "\n")
        return key

    def listen(self) -> list[str]:
        """Flags of the listening side."""
        if self.psk:
            return ["--psk", str(self.folder / "shared.psk")]
        return ["--key", str(self.folder / "server.key"), "--allow", f"app-host={self.client.public}"]

    def connect(self) -> list[str]:
        """Flags of the connecting side."""
        if self.psk:
            return ["--psk", str(self.folder / "shared.psk")]
        return ["--key", str(self.folder / "client.key"), "--peer", str(self.server.public)]


class Proxy(Process):
    """One `stcp-proxy` process that logs JSON.

    Args:
        arguments: of the command line; a ``--bind`` with port 0 is best.
        log: the file that takes its log.
        env: added to the environment.
        prefix: a command to run it under.
    """

    def __init__(
        self, arguments: list[str], *, log: Path, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> None:
        self._checked = False
        style = [] if arguments[0] == "run" else ["--log-format", "json"]  # `run` has it in its file; JSON where nothing is said
        super().__init__([*prefix, *COMMAND, *arguments, *style], output=log, env=env)

    def log(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Its log lines so far, of one event and with these fields if so asked."""
        lines = []
        for line in self.text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                lines.append(json.loads(line))
        wanted = {**({"event": event} if event else {}), **fields}
        return [line for line in lines if wanted.items() <= line.items()]

    def wait_log(self, event: str, *, count: int = 1, timeout: float = 20.0, **fields: Any) -> list[dict[str, Any]]:
        """Its log lines of `event`, once they stand for `count` of them: repetitions are counted, not repeated."""

        def enough() -> list[dict[str, Any]] | None:
            found = self.log(event, **fields)
            known = times(found)
            if known < count and self.status is not None:
                raise AssertionError(f"the proxy ended with status {self.status}:\n{self.text()}")
            return found if known >= count else None

        try:
            return wait_for(enough, words=f"{count} x {event} {fields}", timeout=timeout)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.text()[-4000:]}") from None

    def ready(self) -> Proxy:
        """Wait until it serves."""
        self.wait_log("ready")
        return self

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as text."""
        return [line["address"] for line in self.wait_log("listening")]

    @property
    def address(self) -> tuple[str, int] | str:
        """Where it listens first, for `harness.sockets.connect`."""
        text = self.addresses[0]
        if text.startswith("unix:"):
            return text.removeprefix("unix:")
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def port(self) -> int:
        """The TCP port on which it listens."""
        return int(self.addresses[0].rpartition(":")[2])

    def ended(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The last log lines of `count` relayed connections."""
        return self.wait_log("connection closed", count=count, **fields)

    def refused(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The log lines of `count` connections that did not come to be relayed."""
        return self.wait_log("connection refused", count=count, **fields)

    def _hurry(self) -> None:
        """A second signal ends the drain; behind its end, it would kill."""
        if len(self.log("stopping")) > len(self.log("stopped")):
            self.signal(signal.SIGTERM)

    def stop(self) -> int:
        status = super().stop()
        if not self._checked:
            self._checked = True
            spelling = find_secret(self.output.read_bytes())
            assert spelling is None, f"the log of {self.output} holds a secret in {spelling}"
        return status


def from_file(folder: Path, name: str, keys: Keys, tunnels: str, **more: Any) -> Proxy:
    """`stcp-proxy run` with a file of these tunnels, serving; `app-host` and `db-host` are the two sides of `keys`.

    Args:
        folder: for the file and the log.
        name: of both.
        keys: who they are; a side that is called "connect" has the client's key, any other the server's.
        tunnels: what stands under `tunnels:`, indented by two.
        more: for `Proxy`.
    """
    own = "client" if name == "connect" else "server"
    path = folder / f"{name}.yaml"
    path.write_text(
        f"identity: {keys.folder}/{own}.key\n"
        f'peers: {{app-host: "{keys.client.public}", db-host: "{keys.server.public}", other-host: "{keys.stranger.public}"}}\n'
        f"tunnels:\n{tunnels}"
    )
    proxy = Proxy(["run", str(path)], log=folder / f"{name}.log", **more)
    try:
        return proxy.ready()  # type: ignore[return-value]
    except BaseException:
        proxy.stop()
        raise


class Pair:
    """A listening and a connecting proxy in front of one target; a context manager.

    Args:
        folder: for keys and logs.
        to: the target.
        keys: who they are; new ones by default.
        listen, connect: further flags of each side.
        bind, wire: where the connecting and the listening side accept.
        via: where the connecting side dials; directly the listening side unless said.
    """

    def __init__(
        self,
        folder: Path,
        to: str | list[str],
        *,
        keys: Keys | None = None,
        listen: list[str] | None = None,
        connect: list[str] | None = None,
        bind: str = "127.0.0.1:0",
        wire: str = "127.0.0.1:0",
        via: str | None = None,
    ) -> None:
        self.keys = keys or Keys(folder)
        targets = [to] if isinstance(to, str) else to
        flags = [flag for target in targets for flag in ("--to", target)]
        self.listen = Proxy(["listen", "--bind", wire, *flags, *self.keys.listen(), *(listen or [])], log=folder / "listen.log")
        try:
            self.listen.ready()
            self.connect = Proxy(
                ["connect", "--bind", bind, "--to", via or self.listen.addresses[0], *self.keys.connect(), *(connect or [])],
                log=folder / "connect.log",
            )
        except BaseException:
            self.listen.stop()
            raise
        try:
            self.connect.ready()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> tuple[str, int] | str:
        """Where applications connect."""
        return self.connect.address

    @property
    def port(self) -> int:
        """The TCP port to which applications connect."""
        return self.connect.port

    def stop(self) -> None:
        try:
            self.connect.stop()
        finally:
            self.listen.stop()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
