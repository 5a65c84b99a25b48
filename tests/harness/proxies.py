"""The two commands of the product in real processes, their keys, and a pair of proxies.

The log of every process started here is searched for all secrets when the process stops. It must contain none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harness import forked
from harness.forked import COMMAND, HERE, Forked, Place
from harness.leaks import find_secret, forbid
from harness.process import Process, wait_for
from stcp_proxy.keys import PrivateKey, format_private_key, format_psk, generate_psk, write_secret_file


def times(lines: list[dict[str, Any]]) -> int:
    """The number of events that the lines stand for."""
    return sum(line.get("times", 1) for line in lines)


@dataclass
class Keys:
    """Key files for both sides, or one shared secret.

    Attributes:
        folder: the folder of the files.
        psk: whether both sides use the shared secret.
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
        """Make a further key, in the file NAME.key."""
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


class Command(Process):
    """A command of the product in a separate process.

    Args:
        arguments: the arguments of the command line.
        output: the file for its standard output and standard error.
        env: variables that are added to the environment.
        prefix: a command that runs it.
        place: where it runs.
        fresh: start a new interpreter. Without it, and without a prefix, the command is forked from a process that has imported
            the product.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        output: Path,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        place: Place = HERE,
        fresh: bool = False,
    ) -> None:
        self._place = place
        self._forks = forked.can_fork(env) and not prefix and not fresh
        super().__init__(arguments if self._forks else [*place.prefix, *prefix, *COMMAND, *arguments], output=output, env=env)

    def _start(self, command: Sequence[str], file: BinaryIO, env: dict[str, str] | None) -> subprocess.Popen[bytes] | Forked:
        if not self._forks:
            return super()._start(command, file, env)
        with open(os.devnull, "rb") as nothing:
            streams = nothing.fileno(), file.fileno(), file.fileno()
            return forked.start(command, streams=streams, env=env, place=self._place)


class Proxy(Command):
    """One `stcp-proxy` process that logs JSON.

    Args:
        arguments: the arguments of the command line; a ``--bind`` with port 0 avoids conflicts.
        log: the file for its log.
        more: arguments for `Command`.
    """

    def __init__(self, arguments: list[str], *, log: Path, **more: Any) -> None:
        self._checked = False
        style = [] if arguments[0] == "run" else ["--log-format", "json"]  # `run` reads the format from its file (default: JSON)
        super().__init__([*arguments, *style], output=log, **more)

    def log(self, event: str | None = None, **fields: Any) -> list[dict[str, Any]]:
        """Its log lines so far; only those with this event and these fields, where given."""
        lines = []
        for line in self.text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                lines.append(json.loads(line))
        wanted = {**({"event": event} if event else {}), **fields}
        return [line for line in lines if wanted.items() <= line.items()]

    def wait_log(self, event: str, *, count: int = 1, timeout: float = 60.0, **fields: Any) -> list[dict[str, Any]]:
        """Wait until the log lines of `event` stand for `count` events, and return them. One line may stand for several
        events."""

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
        """Wait until it is ready."""
        self.wait_log("ready")
        return self

    @property
    def addresses(self) -> list[str]:
        """Its listening addresses as text."""
        return [line["address"] for line in self.wait_log("listening")]

    @property
    def address(self) -> tuple[str, int] | str:
        """Its first listening address, in the form that `harness.sockets.connect` takes."""
        text = self.addresses[0]
        if text.startswith("unix:"):
            return text.removeprefix("unix:")
        host, _, port = text.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def port(self) -> int:
        """Its TCP listening port."""
        return int(self.addresses[0].rpartition(":")[2])

    def ended(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for the end of `count` relayed connections. Returns their log lines."""
        return self.wait_log("connection closed", count=count, **fields)

    def refused(self, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for `count` refused connections. Returns their log lines."""
        return self.wait_log("connection refused", count=count, **fields)

    def _hurry(self) -> None:
        """Send a second signal, which ends the drain. After the drain, the signal would kill the process."""
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
    """Start `stcp-proxy run` with these tunnels in a file, and wait until it is ready. `app-host` and `db-host` are the sides of
    `keys`.

    Args:
        folder: the folder of the file and the log.
        name: the name of both.
        keys: the keys of both sides; a side named "connect" has the client's key, other sides have the server's key.
        tunnels: the text under `tunnels:`, indented by two.
        more: arguments for `Proxy`.
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
        folder: the folder of keys and logs.
        to: the target.
        keys: the keys of both sides; new ones by default.
        listen, connect: further flags of each side.
        bind, wire: the listening addresses of the connecting and of the listening side.
        via: the address that the connecting side dials; by default the address of the listening side.
        fresh: whether both are started from a new interpreter.
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
        fresh: bool = False,
    ) -> None:
        self.keys = keys or Keys(folder)
        targets = [to] if isinstance(to, str) else to
        flags = [flag for target in targets for flag in ("--to", target)]
        arguments = ["listen", "--bind", wire, *flags, *self.keys.listen(), *(listen or [])]
        self.listen = Proxy(arguments, log=folder / "listen.log", fresh=fresh)
        try:
            self.listen.ready()
            self.connect = Proxy(
                ["connect", "--bind", bind, "--to", via or self.listen.addresses[0], *self.keys.connect(), *(connect or [])],
                log=folder / "connect.log",
                fresh=fresh,
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
        """The address to which applications connect."""
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
