"""The request for a snapshot: which connections to list, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Order = Literal["newest", "busiest"]
MAX_CONNECTIONS: Final = 1000
"""The largest number of connections that one answer lists."""
MAX_REFUSALS: Final = 50


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """A request for a report.

    Attributes:
        count: the largest number of connections to list.
        order: the order of the connections; the first ones are listed.
        tunnel: list connections of this tunnel alone; empty for all.
        probe: whether the report is only for readiness.
        metrics: whether the report is for metrics: the delay of the event loop is then measured for a while.
    """

    count: int = 100
    order: Order = "newest"
    tunnel: str = ""
    metrics: bool = False
    probe: bool = False
