"""The counts of a stress run: latencies in an HdrHistogram, bytes, failures."""

from __future__ import annotations

import collections
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stcp_proxy.lab.loadgen import LabError

if TYPE_CHECKING:
    from collections.abc import Mapping

HIGHEST: Final = 3_600_000_000
"""Longest latency in the histogram, in microseconds."""
DIGITS: Final = 3
"""Significant digits of the histogram."""


def histogram(latencies: Mapping[int, int]) -> Any:
    """An HdrHistogram of counts by microseconds.

    Raises:
        LabError: the package is missing.
    """
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError as exc:
        raise LabError("latencies are counted with hdrhistogram, which is missing", remedy="install stcp-proxy[lab]") from exc
    made = HdrHistogram(1, HIGHEST, DIGITS)
    for microseconds, count in latencies.items():
        made.record_value(min(max(microseconds, 1), HIGHEST), count)
    return made


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished run. Latencies are in milliseconds. Throughput is in MB/s: message bytes with their length prefix, both ways."""

    seconds: float
    requests: int
    requests_per_second: float
    throughput_mb_s: float
    average_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    connections: int
    operation_errors: int
    connection_errors: int
    timeouts: int

    @property
    def clean(self) -> bool:
        """Whether the run had no failure."""
        return not (self.operation_errors or self.connection_errors or self.timeouts)

    def as_dict(self) -> dict[str, Any]:
        """The summary as JSON."""
        return asdict(self)


@dataclass(slots=True)
class Tally:
    """Counters of a run under way.

    Attributes:
        latencies: the number of requests by microseconds. It is a plain dictionary, because each request updates it; `summary`
            makes the histogram of it.
        operation_errors: wrong answers, and connections that failed during a request.
        connection_errors: connections that could not be opened.
        first_error: the text of the first failure.
    """

    latencies: collections.defaultdict[int, int] = field(default_factory=lambda: collections.defaultdict(int))
    connections: int = 0
    operation_errors: int = 0
    connection_errors: int = 0
    timeouts: int = 0
    first_error: str = ""

    @property
    def requests(self) -> int:
        """Answered requests so far."""
        return sum(self.latencies.values())

    def note(self, what: str) -> None:
        """Keep the text of the first failure."""
        self.first_error = self.first_error or what

    def summary(self, seconds: float, message_bytes: int) -> Summary:
        """The figures so far.

        Args:
            seconds: the duration in which requests were made.
            message_bytes: bytes of one message in one direction.
        """
        requests, held = self.requests, histogram(self.latencies)
        at = {p: held.get_value_at_percentile(p) / 1e3 if requests else 0.0 for p in (50, 99, 99.9)}
        total = sum(microseconds * count for microseconds, count in self.latencies.items())
        return Summary(
            seconds=seconds,
            requests=requests,
            requests_per_second=requests / seconds if seconds else 0.0,
            throughput_mb_s=2 * requests * message_bytes / seconds / 1e6 if seconds else 0.0,
            average_ms=total / requests / 1e3 if requests else 0.0,
            p50_ms=at[50],
            p99_ms=at[99],
            p999_ms=at[99.9],
            max_ms=max(self.latencies, default=0) / 1e3,
            connections=self.connections,
            operation_errors=self.operation_errors,
            connection_errors=self.connection_errors,
            timeouts=self.timeouts,
        )
