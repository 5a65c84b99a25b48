"""Two network namespaces with an agent each, for programs whose sockets have the protocol number 253.

`near` connects, `far` listens. A test runs a program in one of them, with or without the shim that changes the protocol number.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stcp_proxy import keys

from .programs import START, key

NEAR, FAR = "10.253.0.1", "10.253.0.2"
NEAR6, FAR6 = "fd53::1", "fd53::2"
SHIM: Final = Path(__file__).with_name("protocol_shim.c")
PRODUCT: Final = (sys.executable, "-m", "stcp_proxy")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@dataclass
class TwoHosts:
    """Both namespaces.

    Attributes:
        folder: keys, logs and the shim.
        public: the public key of each side.
        shim: the library for LD_PRELOAD.
    """

    folder: Path
    public: dict[str, str] = field(default_factory=dict)
    shim: str = ""
    _agents: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("near", "far", "stranger"):
            self.public[name] = key(self.folder / f"{name}.key")
        keys.write_secret_file(self.folder / "shared.psk", keys.format_psk(keys.generate_psk()) + "\n")
        self.shim = str(self.folder / "shim.so")
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", self.shim, str(SHIM)], check=True)

    def command(self, side: str, *words: str) -> list[str]:
        """A command in a namespace, without the shim."""
        return ["ip", "netns", "exec", side, *words]

    def shimmed(self, side: str, *words: str) -> list[str]:
        """A command in a namespace whose stream sockets have the protocol number 253."""
        return self.command(side, "env", f"LD_PRELOAD={self.shim}", *words)

    @contextlib.contextmanager
    def running(self, argv: Sequence[str], name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program in the background; its output is in NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def wait_log(self, name: str, text: str, seconds: float = START, *, count: int = 1) -> None:
        """Wait until a program has written something, so many times."""
        deadline = time.monotonic() + seconds
        while self.log(name).count(text) < count:
            assert time.monotonic() < deadline, f"{name} has not written {text!r}:\n{self.log(name)}"
            time.sleep(0.2)

    @contextlib.contextmanager
    def agent(self, side: str, *words: str) -> Iterator[None]:
        """An agent with flags of its own."""
        common = ("--user", "all", "--log-format", "json", "--key", str(self.folder / f"{side}.key"))
        log = self.folder / f"agent-{side}.log"
        before = log.read_text().count("agent registered") if log.exists() else 0
        with self.running(self.command(side, *PRODUCT, "agent", *common, *words), f"agent-{side}") as process:
            self._agents[side] = process
            self.wait_log(f"agent-{side}", "agent registered", count=before + 1)
            yield

    def near_agent(self) -> contextlib.AbstractContextManager[None]:
        """The agent of `near`, which expects that of `far` at its addresses."""
        peers = [f"{each}={self.public['far']}" for each in (FAR, f"[{FAR6}]")]
        return self.agent("near", *(word for peer in peers for word in ("--peer", peer)))

    def stop_agent(self, side: str) -> None:
        """Stop an agent in order."""
        self._agents[side].terminate()
        assert self._agents[side].wait(60) == 0

    @contextlib.contextmanager
    def agents(self) -> Iterator[None]:
        """An agent on each side, which admit each other."""
        with self.agent("far", "--allow", f"near={self.public['near']}", "--service", "orders"), self.near_agent():
            yield

    def run(self, argv: Sequence[str], *, timeout: float = 110, **more: Any) -> subprocess.CompletedProcess[str]:
        """A program to its end."""
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **more)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[TwoHosts]:
    """Make the namespaces, and remove them at the end."""
    with contextlib.ExitStack() as stack:
        for side in ("near", "far"):
            ip("netns", "add", side)
            stack.callback(subprocess.run, ["ip", "netns", "del", side], check=False)
        ip("link", "add", "near0", "netns", "near", "type", "veth", "peer", "name", "far0", "netns", "far")
        for side, address, address6 in (("near", NEAR, NEAR6), ("far", FAR, FAR6)):
            ip("-n", side, "link", "set", "lo", "up")
            ip("-n", side, "addr", "add", f"{address}/24", "dev", f"{side}0")
            ip("-n", side, "addr", "add", f"{address6}/64", "dev", f"{side}0", "nodad")
            ip("-n", side, "link", "set", f"{side}0", "up")
        yield TwoHosts(folder)


def eventually_listens(hosts: TwoHosts, side: str, port: int, seconds: float = START) -> None:
    """Wait until something listens on a port of a namespace. To connect would be a handshake that fails."""
    deadline = time.monotonic() + seconds
    while True:
        found = hosts.run(hosts.command(side, "cat", "/proc/net/tcp", "/proc/net/tcp6")).stdout
        if any(f":{port:04X} " in line and " 0A " in line for line in found.splitlines()):
            return
        assert time.monotonic() < deadline, f"nobody listens on port {port} of {side}"
        time.sleep(0.3)
