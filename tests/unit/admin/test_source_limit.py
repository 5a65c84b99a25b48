"""Each source has a rate of its own."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from stcp_proxy.admin.source_limit import BURST, RATE, SourceLimit, source_of


async def test_a_source_has_its_burst_and_then_its_rate(autojump_clock: MockClock) -> None:
    limit = SourceLimit()
    assert sum(limit.allow("a") for _ in range(1000)) == BURST
    await trio.sleep(1)
    assert sum(limit.allow("a") for _ in range(1000)) == RATE
    await trio.sleep(1000)
    assert sum(limit.allow("a") for _ in range(1000)) == BURST


async def test_a_connection_over_the_rate_waits_and_others_do_not(autojump_clock: MockClock) -> None:
    limit = SourceLimit()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(int(BURST) + 10):
            nursery.start_soon(limit.turn, "a")
    assert trio.current_time() - began == pytest.approx(10 / RATE)
    began = trio.current_time()
    await limit.turn("b")
    assert trio.current_time() == began


async def test_however_many_wait_the_next_one_waits_no_longer(autojump_clock: MockClock) -> None:
    limit = SourceLimit()
    async with trio.open_nursery() as nursery:
        for _ in range(10_000):
            nursery.start_soon(limit.turn, "a")
        await trio.lowlevel.checkpoint()
        with trio.fail_after(64 / RATE + 0.1):
            await limit.turn("a")


async def test_another_source_is_not_touched(autojump_clock: MockClock) -> None:
    limit = SourceLimit()
    for _ in range(1000):
        limit.allow("a")
    assert limit.allow("b")


async def test_many_sources_do_not_fill_memory(autojump_clock: MockClock) -> None:
    limit = SourceLimit()
    for number in range(10_000):
        limit.allow(str(number))
    assert len(limit._buckets) <= 4096


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8::1", 5, 0, 0), "2001:db8::/64"),
        (("2001:db8::ffff:2", 5, 0, 0), "2001:db8::/64"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_the_name_of_a_source(address: Any, source: str) -> None:
    assert source_of(address) == source


async def every_task_runs() -> None:
    for _ in range(2):  # Trio runs the tasks of a turn in any order
        await trio.lowlevel.checkpoint()


async def test_who_would_wait_longest_is_far_behind(autojump_clock: MockClock) -> None:
    limit = SourceLimit()
    async with trio.open_nursery() as nursery:
        for _ in range(int(BURST) + 63):
            nursery.start_soon(limit.turn, "a")
        await every_task_runs()
        assert not limit.is_far_behind("a")
        nursery.start_soon(limit.turn, "a")
        await every_task_runs()
        assert limit.is_far_behind("a")
        assert not limit.is_far_behind("b")
        await trio.sleep(1 / RATE)
        assert not limit.is_far_behind("a")
