"""A running pair of proxies: its processes, their CPU time and memory, start and end."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.loadgen import LabError

START_DEADLINE: Final = 20.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Pair:
    """A tunnel that carries connections from `port` to the echo server.

    Attributes:
        name: the peer's name.
        port: where the connect side accepts, on 127.0.0.1.
        sides: process ids by side, "connect" and "listen"; empty without a proxy.
    """

    name: str
    port: int
    sides: Mapping[str, int]

    def cpu_seconds(self) -> float:
        """User and system time of all processes of the pair so far."""
        return sum(_cpu(pid) for root in self.sides.values() for pid in family(root))

    def memory(self) -> dict[str, int]:
        """Resident bytes by side, all processes of the side together."""
        return {side: sum(_resident(pid) for pid in family(root)) for side, root in self.sides.items()}


def family(root: int) -> list[int]:
    """A process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (state is 0); empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11:15]) / _TICK if fields else 0.0


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:")), 0)


def raise_descriptor_limit() -> None:
    """Raise the limit of descriptors to the hard limit; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_next_port = 20000 + os.getpid() % 8000


def free_port() -> int:
    """A free port, below the range of ports for outgoing connections."""
    global _next_port
    while True:
        _next_port = 20000 + (_next_port + 1 - 20000) % 12000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port))
            except OSError:
                continue
            return _next_port


def await_port(port: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until a process accepts at a port of 127.0.0.1.

    Raises:
        LabError: nothing accepts within 20 seconds, or the process ended.
    """
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if child.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"nothing accepts at port {port}") from None
            time.sleep(0.02)
        else:
            return


@contextmanager
def running(name: str, port: int, commands: Mapping[str, Sequence[str]], folder: Path) -> Iterator[Pair]:
    """Start the processes of a pair, wait until a message goes through, and end the processes at the end of the context.

    Args:
        name: the peer's name, for its log files and messages.
        port: the port on which the connect side accepts plain connections.
        commands: program and arguments by side, in the order of their start.
        folder: working folder; each side's output goes to a log file here.

    Raises:
        LabError: no message goes through the pair within 20 seconds; the text has the tail of its logs.
    """
    with ExitStack() as stack:
        children = {}
        for side, argv in commands.items():
            log = stack.enter_context((folder / f"{name}-{side}.log").open("wb"))
            child = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(_end, child)
            children[side] = child
        _await_ready(name, port, children, folder)
        yield Pair(name, port, {side: child.pid for side, child in children.items()})


def _await_ready(name: str, port: int, children: Mapping[str, subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            with loadgen.idle(port, 1):
                return
        except LabError as exc:
            dead = [side for side, child in children.items() if child.poll() is not None]
            if dead or time.monotonic() > deadline:
                what = f"its {dead[0]} side ended at once" if dead else f"no message goes through ({exc})"
                raise LabError(f"{name} does not run: {what}\n{_log_tails(name, children, folder)}".rstrip()) from exc
        time.sleep(0.05)


def _log_tails(name: str, sides: Mapping[str, object], folder: Path) -> str:
    tails = ((folder / f"{name}-{side}.log").read_text(errors="replace")[-600:].strip() for side in sides)
    return "\n".join(tail for tail in tails if tail)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, then SIGKILL. No connection is in use, so there is no need to wait for the drain."""
    child.terminate()
    try:
        child.wait(3)
    except subprocess.TimeoutExpired:
        for pid in reversed(family(child.pid)):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        child.wait()
