"""Connections at rest cost little memory and no time.

    STCP_FULL_SIZE=1 pytest -q -s --timeout=900 tests/real/test_4_idle.py

The memory of a proxy is what it has beyond its own base: after a first few connections, before the rest.
"""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Pair
from harness.real import full_size, say
from harness.sockets import Target, connect, read_exactly

CONNECTIONS = 2000
WARM_UP = 20
SECONDS = 10 if full_size() else 4
SETTLED = 7
"""Seconds after which the last look at connections that have just been active is over."""
MAX_BYTES = 12 * 1024


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for both ends of every connection in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def hold(pair: Pair, target: HoldingTarget, count: int) -> list[socket.socket]:
    """`count` connections, each proved by a byte in both directions."""
    clients = []
    for _ in range(count):
        client = connect(pair.address)
        client.sendall(b"?")
        assert read_exactly(client, 1) == b"!"
        clients.append(client)
    return clients


class HoldingTarget(Target):
    """Answers one byte and keeps the connection without a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[socket.socket] = []

    def _handle(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        sock.recv(1)
        sock.sendall(b"!")
        self.kept.append(sock)

    def close(self) -> None:
        super().close()
        for sock in self.kept:
            sock.close()


@pytest.mark.usefixtures("descriptors")
def test_idle_connections(tmp_path: Path) -> None:
    with HoldingTarget() as target, Pair(tmp_path, target.to, fresh=True) as pair:
        proxies = {"listen": pair.listen, "connect": pair.connect}
        warm_up = hold(pair, target, WARM_UP)
        base = {name: proxy.memory() for name, proxy in proxies.items()}

        clients = hold(pair, target, CONNECTIONS)
        time.sleep(SETTLED)
        for name, proxy in proxies.items():
            rss, pss = (now - before for now, before in zip(proxy.memory(), base[name], strict=True))
            say(
                f"{name}: base {base[name][0] / 2**20:.1f} MiB, "
                f"{rss / CONNECTIONS / 1024:.2f} KiB RSS and {pss / CONNECTIONS / 1024:.2f} KiB PSS a connection"
            )
            assert max(rss, pss) < MAX_BYTES * CONNECTIONS

        before_cpu = {name: proxy.cpu_seconds() for name, proxy in proxies.items()}
        time.sleep(SECONDS)
        for name, proxy in proxies.items():
            used = proxy.cpu_seconds() - before_cpu[name]
            say(f"{name}: {used:.2f} s of processor time in {SECONDS} s with {CONNECTIONS} idle connections")
            assert used < 0.03 * SECONDS / 4

        for sock in clients + warm_up + target.kept:
            sock.close()
        for proxy in proxies.values():
            proxy.ended(CONNECTIONS + WARM_UP, reason="finished", timeout=60)
            wait_for(lambda proxy=proxy: proxy.descriptors() < 40, words="descriptors are given back")
