"""One report for all probes of half a second.

A probe skips the rate limit of other requests, so that strangers cannot delay an orchestrator. Its report must therefore cost
little however many probes there are: a probe within half a second gets the report that another probe has paid for. A report
from before a change of this process (a stop, a reload, rules of interception) is not shared: an orchestrator has to see a stop at
once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Final

import trio

from stcp_proxy.admin.report import Report
from stcp_proxy.admin.snapshot_request import SnapshotRequest

HOLDS: Final = 0.5
"""Seconds for which a report is shared."""
_WANTED: Final = SnapshotRequest(count=0, probe=True)


class SharedReport:
    """The report of probes.

    Args:
        gather: makes a report.
        state: what a report must not be older than, to compare: the state of the process.
    """

    def __init__(
        self, gather: Callable[[SnapshotRequest], Awaitable[Report]], state: Callable[[], Hashable] = lambda: None
    ) -> None:
        self._gather = gather
        self._state = state
        self._made_in: Hashable = None
        self._turn = trio.Lock()
        self._report: Report | None = None
        self._at = float("-inf")

    async def get(self) -> Report:
        """The report, at most `HOLDS` seconds old. Those who wait for one share it."""
        async with self._turn:
            state = self._state()
            if self._report is None or state != self._made_in or trio.current_time() >= self._at + HOLDS:
                self._report = await self._gather(_WANTED)
                self._made_in = state
                self._at = trio.current_time()
            return self._report
