"""The last hour of every tunnel: throughput, open connections and refusals, one point every ten seconds.

The first worker process keeps it, from merged reports. So a dashboard that is opened in an incident shows how it began. Memory is
bounded: `BYTES_PER_TUNNEL` for a tunnel that has had a connection, nothing for one that has had none, and the same again for the
sum of all tunnels.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Final

from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.report import Report, TunnelReport

STEP: Final = 10.0
"""Seconds between two points."""
POINTS: Final = 360
"""Points that are kept: an hour."""
BYTES_PER_TUNNEL: Final = POINTS * 16
"""Two rates and two counts, four bytes each, for each point: 5,760 bytes."""
SERIES: Final = 50
"""Tunnels of which one answer has a series, when no tunnel is named."""
_LONGEST: Final = 2.5 * STEP
"""Seconds between two reports beyond which the rate between them is unknown."""
_MAX_COUNT: Final = 2**32 - 1


@dataclass(slots=True, kw_only=True)
class Series:
    """The past of one tunnel, the oldest point first.

    Attributes:
        tunnel: its name; empty for the sum of all tunnels.
        to_wire, to_plain: application bytes a second; None where it is unknown.
        open: open connections.
        refused: connections refused since the point before.
    """

    tunnel: str
    to_wire: list[int | None]
    to_plain: list[int | None]
    open: list[int]
    refused: list[int]


@dataclass(slots=True, kw_only=True)
class Past:
    """The answer to `/history`.

    Attributes:
        started: the start of the proxy, seconds since 1970.
        step: seconds between two points.
        times: the time of each point, seconds since 1970.
        series: the sum of all tunnels first.
    """

    started: float
    step: float
    times: list[float]
    series: list[Series]


@dataclass(frozen=True, slots=True)
class _Counters:
    """What a report counts, of one tunnel or of all."""

    to_wire: int = 0
    to_plain: int = 0
    open: int = 0
    refused: int = 0

    @classmethod
    def of(cls, tunnel: TunnelReport) -> _Counters:
        counts = tunnel.counts
        to_wire, to_plain = counts.bytes_to_wire + tunnel.open_to_wire, counts.bytes_to_plain + tunnel.open_to_plain
        return cls(to_wire, to_plain, tunnel.open, counts.total_refused)

    def __add__(self, other: _Counters) -> _Counters:
        return _Counters(
            self.to_wire + other.to_wire, self.to_plain + other.to_plain, self.open + other.open, self.refused + other.refused
        )


class _Ring:
    """The points of one tunnel. A place of the ring belongs to the time at the same place."""

    def __init__(self) -> None:
        self.before = _Counters()
        self.to_wire = array("f", [0.0]) * POINTS
        self.to_plain = array("f", [0.0]) * POINTS
        self.open = array("I", [0]) * POINTS
        self.refused = array("I", [0]) * POINTS

    def put(self, place: int, now: _Counters, seconds: float) -> None:
        before, self.before = self.before, now
        known = 0 < seconds <= _LONGEST and now.to_wire >= before.to_wire and now.to_plain >= before.to_plain
        self.to_wire[place] = (now.to_wire - before.to_wire) / seconds if known else math.nan
        self.to_plain[place] = (now.to_plain - before.to_plain) / seconds if known else math.nan
        self.open[place] = min(now.open, _MAX_COUNT)
        self.refused[place] = min(max(0, now.refused - before.refused), _MAX_COUNT)

    def series(self, tunnel: str, places: list[int]) -> Series:
        return Series(
            tunnel=tunnel,
            to_wire=[_whole(self.to_wire[place]) for place in places],
            to_plain=[_whole(self.to_plain[place]) for place in places],
            open=[self.open[place] for place in places],
            refused=[self.refused[place] for place in places],
        )


def _whole(rate: float) -> int | None:
    return None if math.isnan(rate) else round(rate)


class History:
    """Keeps the points.

    Args:
        started: the start of the proxy, seconds since 1970: all counts were 0 then.
    """

    def __init__(self, started: float) -> None:
        self._started: Final = started
        self._times = array("d")
        self._next = 0
        self._last = started
        self._sum = _Ring()
        self._rings: dict[str, _Ring] = {}

    async def add(self, report: Report, steps: Steps) -> None:
        """Add a point. Only one call at a time. `past` shows the point when all tunnels have it.

        Args:
            report: the merged report of all worker processes.
            steps: pauses, so that the connections go on meanwhile.
        """
        if report.time <= self._last and self._times:
            self._times, self._next = array("d"), 0  # the clock was set back: the old times mean nothing now
        place, seconds = self._next, report.time - self._last
        total = _Counters()
        present = set()
        for tunnel in report.tunnels:
            await steps.pause()
            counters = _Counters.of(tunnel)
            total += counters
            present.add(tunnel.name)
            ring = self._rings.get(tunnel.name)
            if ring is None:
                if counters == _Counters():
                    continue
                ring = self._rings[tunnel.name] = _Ring()
            ring.put(place, counters, seconds)
        self._sum.put(place, total, seconds)
        if len(self._times) < POINTS:
            self._times.append(report.time)
        else:
            self._times[place] = report.time
        self._next, self._last = (place + 1) % POINTS, report.time
        for name in self._rings.keys() - present:
            del self._rings[name]

    def past(self, names: list[str], points: int = POINTS) -> Past:
        """The last points.

        Args:
            names: tunnels to tell of, beside the sum.
            points: the largest number of points.
        """
        count = len(self._times)
        first = self._next if count == POINTS else 0
        places = [(first + number) % POINTS for number in range(count)][-points:] if points else []
        return Past(
            started=self._started,
            step=STEP,
            times=[round(self._times[place], 3) for place in places],
            series=[
                self._sum.series("", places),
                *(self._rings[name].series(name, places) for name in names if name in self._rings),
            ],
        )
