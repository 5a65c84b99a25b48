"""The limits of each worker process: together they admit what the file allows."""

from __future__ import annotations

import pytest

from stcp_proxy.config import KeyAuth, Mode, Plan, TunnelPlan
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.process.workers import share
from stcp_proxy.protocol.wire import Suite


def plan(workers: int, *limits: tuple[int, int]) -> Plan:
    tunnels = tuple(
        TunnelPlan(
            name=f"tunnel{number}",
            mode=Mode.LISTEN,
            bind=TcpAddress("127.0.0.1", 0),
            to=(TcpAddress("127.0.0.1", 1),),
            auth=KeyAuth(PrivateKey.generate(), {}),
            suites=(Suite.CLASSIC_KEYS,),
            max_connections=connections,
            max_handshakes=handshakes,
        )
        for number, (connections, handshakes) in enumerate(limits)
    )
    return Plan(tunnels=tunnels, workers=workers)


@pytest.mark.parametrize(
    ("limit", "workers", "share_of_each"),
    [(8, 4, 2), (9, 4, 3), (10, 4, 3), (11, 4, 3), (12, 4, 3), (1, 4, 1), (3, 4, 1), (1000, 3, 334), (7, 1, 7)],
)
def test_a_limit_is_divided_and_rounded_up(limit: int, workers: int, share_of_each: int) -> None:
    """Rounded down, all workers together would admit less than the file allows, and none with more workers than places."""
    mine = share(plan(workers, (limit, 100), (100, limit)))
    assert mine.tunnels[0].max_connections == share_of_each
    assert mine.tunnels[1].max_handshakes == share_of_each
    assert limit <= share_of_each * workers < limit + workers


def test_a_worker_starts_no_workers() -> None:
    assert share(plan(4, (8, 8))).workers == 1
