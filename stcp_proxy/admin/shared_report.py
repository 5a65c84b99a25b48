"""One report for all probes of half a second.

A probe skips the rate limit of other requests, so that strangers cannot delay an orchestrator. Its report must therefore cost
little however many probes there are: whoever asks within half a second gets the report that another probe has paid for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    """

    def __init__(self, gather: Callable[[SnapshotRequest], Awaitable[Report]]) -> None:
        self._gather = gather
        self._turn = trio.Lock()
        self._report: Report | None = None
        self._at = float("-inf")

    async def get(self) -> Report:
        """The report, at most `HOLDS` seconds old. Those who wait for one share it."""
        async with self._turn:
            if self._report is None or trio.current_time() >= self._at + HOLDS:
                self._report = await self._gather(_WANTED)
                self._at = trio.current_time()
            return self._report
