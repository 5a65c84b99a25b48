"""A path that is lost for some seconds ends no relay, as it ends no direct connection: both legs, open and closed windows."""

from __future__ import annotations

import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import DATA, PATIENCE, Relay, eventually, noise, read_exactly, tcp_pair

TIMEOUT = 12.0
"""TCP_USER_TIMEOUT of both legs, seconds. After a loss of `LOST` the next retransmission may come at 6.4 s."""
QUIET = TIMEOUT - 1
"""Seconds without a segment before the path is lost."""
LOST = 5.0
BUFFER = 65_536
TABLE = "inet stcp_test"


def nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, timeout=60)


def loss(hook: str, ports: list[int]) -> str:
    """A chain that drops every segment of some connections: where it is sent ("output"), or on its way ("input")."""
    numbers = ", ".join(map(str, ports))
    return (
        f"chain {hook} {{ type filter hook {hook} priority 0;"
        f" tcp sport {{ {numbers} }} drop; tcp dport {{ {numbers} }} drop; }}\n"
    )


class Case:
    """One relay with one kind of traffic while the path of a leg, or of both, is lost.

    Args:
        kind: "up", "down", "both": what is sent while it is lost. "peer reads nothing", "application reads nothing": what has
            closed a window before.
        timeout: TCP_USER_TIMEOUT of both legs, seconds.
        buffer: SO_RCVBUF of the application and of the peer, bytes; None lets it grow.
    """

    def __init__(self, kind: str, timeout: float = TIMEOUT, buffer: int | None = None) -> None:
        self.kind = kind
        legs = *tcp_pair(), *tcp_pair()
        if buffer is not None:
            for end in (legs[0], legs[2]):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        for leg in (legs[1], legs[3]):
            leg.setsockopt(socket.SOL_TCP, socket.TCP_USER_TIMEOUT, int(1000 * timeout))
        self.relay = Relay(legs=legs)
        application, peer = (leg.getsockname()[1] for leg in (legs[0], legs[2]))
        self.ports = {"up": [peer], "down": [application], "both": [application, peer]}.get(
            kind, [peer if kind.startswith("peer") else application]
        )
        self.sent = 0
        self.relay.check_alive()

    def close_window(self) -> None:
        """Send until nothing moves any more."""
        r = self.relay
        while "nothing" in self.kind:
            chunk = noise(50_000)
            sock, data = (r.app, chunk) if self.kind.startswith("peer") else (r.peer, r.down.seal(DATA, chunk))
            sock.settimeout(0.5)
            try:
                while data:
                    data = data[sock.send(data) :]
            except TimeoutError:
                self.rest = data
                break
            finally:
                sock.settimeout(PATIENCE)
            self.sent += len(chunk)

    def talk(self) -> None:
        """Send while the path is lost: bytes that reach the relay by the leg that is not lost."""
        if self.kind in ("up", "both"):
            self.relay.app.sendall(b"up")
        if self.kind in ("down", "both"):
            self.relay.send(DATA, b"down")

    def check(self) -> None:
        """All arrives, and the relay goes on."""
        r = self.relay
        if self.kind in ("up", "both"):
            assert r.read_data(2) == b"up"
        if self.kind in ("down", "both"):
            assert read_exactly(r.app, 4) == b"down"
        if self.kind.startswith("peer"):
            self._finish(r.app, lambda size: len(r.read_data(size)))
        elif self.kind.startswith("application"):
            self._finish(r.peer, lambda size: len(read_exactly(r.app, size)))
        r.check_alive()

    def _finish(self, sock: socket.socket, read: Callable[[int], int]) -> None:
        """Send the rest of the chunk that did not fit, while everything is read."""
        writer = threading.Thread(target=sock.sendall, args=(self.rest,))
        writer.start()
        assert read(self.sent + 50_000) == self.sent + 50_000
        writer.join()


KINDS = ["up", "down", "both", "peer reads nothing", "application reads nothing"]


@pytest.mark.timeout(240)
def test_what_direct_connections_survive() -> None:
    """All kinds at once. They were quiet before, for that must not count as silence of the path."""
    found = {hook: [Case(kind) for kind in KINDS] for hook in ("output", "input")}
    cases = list(itertools.chain(*found.values()))
    for case in cases:
        case.close_window()
    time.sleep(QUIET)
    nft(f"table {TABLE} {{\n{''.join(loss(hook, [p for case in group for p in case.ports]) for hook, group in found.items())}}}")
    try:
        for case in cases:
            case.talk()
        time.sleep(LOST)
    finally:
        nft(f"delete table {TABLE}")
    failed = {}
    for hook, group in found.items():
        for case in group:
            try:
                case.check()
            except (AssertionError, OSError) as exc:
                failed[f"{hook}: {case.kind}"] = exc
            case.relay.close()
    assert not failed


@pytest.mark.timeout(240)
def test_a_peer_that_is_lost_behind_a_closed_window_is_noticed() -> None:
    """And not before both have passed: four unanswered probes and the time of TCP_USER_TIMEOUT."""
    cases = [Case("peer reads nothing", 4.0, BUFFER), Case("application reads nothing", 4.0, BUFFER)]
    for case in cases:
        case.close_window()
    for case in cases:  # the time between two probes doubles while a window is closed: close it anew
        read_exactly(case.relay.peer if case.kind.startswith("peer") else case.relay.app, BUFFER)
    time.sleep(0.5)
    nft(f"table {TABLE} {{\n{loss('output', [port for case in cases for port in case.ports])}}}")
    began = time.monotonic()
    try:
        time.sleep(3)
        assert [case.relay.status().end for case in cases] == [abi.End.NONE] * 2
        for case, end in zip(cases, (abi.End.TRUNCATED, abi.End.PLAIN_RESET), strict=True):
            eventually(lambda case=case: case.relay.status().end != abi.End.NONE, "it goes on for ever", 90)  # type: ignore[misc]
            assert case.relay.status().end is end
            print(f"{case.kind}: noticed after {time.monotonic() - began:.1f} s")
    finally:
        nft(f"delete table {TABLE}")
    for case in cases:
        case.relay.close()
