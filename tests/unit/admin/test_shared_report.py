"""Probes share one report for half a second."""

from __future__ import annotations

from typing import cast

import trio
from trio.testing import MockClock

from stcp_proxy.admin.report import Report
from stcp_proxy.admin.shared_report import HOLDS, SharedReport
from stcp_proxy.admin.snapshot_request import SnapshotRequest


class Source:
    """Makes numbered reports, slowly."""

    def __init__(self) -> None:
        self.made = 0
        self.fails = False

    async def gather(self, wanted: SnapshotRequest) -> Report:
        assert wanted.probe
        await trio.sleep(0.1)
        if self.fails:
            raise OSError
        self.made += 1
        return cast("Report", self.made)


async def test_many_probes_at_once_cost_one_report(autojump_clock: MockClock) -> None:
    source = Source()
    shared, got = SharedReport(source.gather), []

    async def probe() -> None:
        got.append(await shared.get())

    async with trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(probe)
    assert got == [1] * 1000
    await trio.sleep(HOLDS - 0.05)
    assert await shared.get() == cast("Report", 1)
    await trio.sleep(0.1)
    assert await shared.get() == cast("Report", 2)


async def test_a_failure_is_not_kept(autojump_clock: MockClock) -> None:
    source = Source()
    shared = SharedReport(source.gather)
    source.fails = True
    for _ in range(2):
        try:
            await shared.get()
        except OSError:
            continue
        raise AssertionError
    source.fails = False
    assert await shared.get() == cast("Report", 1)


async def test_a_probe_that_goes_away_leaves_the_next_one_its_turn(autojump_clock: MockClock) -> None:
    shared = SharedReport(Source().gather)
    with trio.move_on_after(0.05):
        await shared.get()
    with trio.fail_after(1):
        assert await shared.get() == cast("Report", 1)


async def test_a_report_from_before_a_stop_is_not_shared(autojump_clock: MockClock) -> None:
    source, state = Source(), "ready"
    shared = SharedReport(source.gather, lambda: state)
    assert await shared.get() == cast("Report", 1)
    state = "draining"
    assert await shared.get() == cast("Report", 2)
    assert await shared.get() == cast("Report", 2)
