"""The bytes of thousands of connections are read in steps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
import trio

from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.live_bytes import Meter


@dataclass(eq=False)
class Relay:
    engine: str
    why_engine: str = ""
    asked: int = 0

    def counts(self) -> tuple[int, int]:
        self.asked += 1
        return 10, 20


@dataclass(eq=False)
class Link:
    relay: Relay | None = field(default_factory=lambda: Relay("python"))
    early: int = 1


@pytest.mark.parametrize("engine", ["python", "kernel"])
async def test_the_loop_has_its_turn_while_bytes_are_read(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock costs a millisecond here."""
    clock = itertools.count(0.0, 0.001)
    monkeypatch.setattr("stcp_proxy.admin.cooperate.time.perf_counter", lambda: next(clock))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    links = [Link(Relay(engine)) for _ in range(1000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        counts = await Meter().read(links, Steps())  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()
    assert turns > 200
    assert set(counts.values()) == {(11, 20)}


async def test_the_kernel_is_asked_about_a_part_and_the_rest_is_as_it_was_seen_last() -> None:
    links = [Link(Relay("kernel")) for _ in range(3)]
    meter = Meter(reads=2)
    first = await meter.read(links, Steps())  # type: ignore[arg-type]
    assert sorted(first.values()) == [(1, 0), (11, 20), (11, 20)]
    second = await meter.read(links, Steps())  # type: ignore[arg-type]
    assert set(second.values()) == {(11, 20)}
    assert sum(link.relay.asked for link in links if link.relay is not None) == 4


async def test_a_connection_that_is_not_relayed_has_its_early_bytes() -> None:
    link = Link(relay=None)
    assert (await Meter().read([link], Steps()))[link] == (1, 0)  # type: ignore[list-item, index]
