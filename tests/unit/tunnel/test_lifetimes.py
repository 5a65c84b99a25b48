"""Connections that end after a maximum lifetime. The clock jumps."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from stcp_proxy.config import Mode
from stcp_proxy.counters import Ledger
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections
from stcp_proxy.tunnel.lifetimes import Lifetimes

from .rig import make_plan


class Ends:
    """Notes which connection was ended, and when."""

    def __init__(self) -> None:
        self.live = LiveConnections(Mode.LISTEN, Trust.of(make_plan().auth), Ledger())
        self.lifetimes = Lifetimes(lambda connection: self.came.append((connection.client, trio.current_time() - self.began)))
        self.came: list[tuple[str, float]] = []
        self.began = trio.current_time()

    def begin(self, name: str, seconds: float, nursery: trio.Nursery) -> Connection:
        connection = Connection("tunnel", name, self.live)
        self.lifetimes.begin(connection, seconds, nursery)
        return connection


async def test_each_ends_in_its_time(autojump_clock: MockClock) -> None:
    """A later connection may have an earlier deadline: a reload has lowered the lifetime."""
    ends = Ends()
    async with trio.open_nursery() as nursery:
        ends.begin("a", 10, nursery)
        await trio.sleep(1)
        ends.begin("b", 2, nursery)
        ends.begin("c", 20, nursery)
        await trio.sleep(100)
        ends.begin("d", 5, nursery)  # after a time without any
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert ends.came == [("b", 3.0), ("a", 10.0), ("c", 21.0), ("d", 106.0)]


async def test_what_has_ended_leaves_nothing(autojump_clock: MockClock) -> None:
    ends = Ends()
    async with trio.open_nursery() as nursery:
        for number in range(1000):
            ends.lifetimes.forget(ends.begin(str(number), 10, nursery))
        assert len(ends.lifetimes) == 0
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    assert ends.came == []
