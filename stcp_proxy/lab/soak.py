"""Memory under load: a pair carries messages, a bulk stream and new connections at once while its resident memory is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.bench import pair as pairs
from stcp_proxy.lab.bench import plots
from stcp_proxy.lab.bench.cells import Table
from stcp_proxy.lab.bench.figures import KIB
from stcp_proxy.lab.bench.measure import start_pair
from stcp_proxy.lab.bench.peer import Peer

DURATION: Final = 300.0
"""Seconds of a soak."""
STEPS: Final = 20
"""The number of progress reports in one soak. Memory is measured ten times as often."""
WARM: Final = 0.2
"""The fraction of a soak that counts as warm-up, for buffers and allocators."""


@dataclass(frozen=True, slots=True)
class Course:
    """The memory of one pair over time.

    Attributes:
        peer: the pair's name.
        points: seconds since the load began, and resident bytes by side.
        did: the number of operations of each kind of load.
    """

    peer: str
    points: Sequence[tuple[float, dict[str, int]]]
    did: dict[str, int]

    def part(self, side: str, begin: float, end: float) -> float:
        """Median resident bytes of a side within a part of the course, given as fractions."""
        last = self.points[-1][0]
        return statistics.median(held[side] for at, held in self.points if begin * last <= at <= end * last)

    def as_dict(self) -> dict[str, Any]:
        """The course as JSON."""
        return {"peer": self.peer, "did": self.did, "points": [[round(at, 2), held] for at, held in self.points]}


def watch(peer: Peer, *, duration: float, progress: Callable[[str], None]) -> Course:
    """Load a pair for some seconds and measure its memory.

    Raises:
        LabError: the pair does not start, or a load fails.
    """
    pairs.raise_descriptor_limit()
    with loadgen.echo_server() as target, start_pair(peer, target) as pair, ThreadPoolExecutor(3) as pool:
        loads = {
            "round trips": pool.submit(loadgen.round_trips, pair.port, connections=50, size=4096, seconds=duration),
            "bytes": pool.submit(loadgen.bulk, pair.port, connections=1, seconds=duration),
            "new connections": pool.submit(loadgen.new_connections, pair.port, clients=4, seconds=duration),
        }
        began, points = time.monotonic(), []
        while not any(load.done() for load in loads.values()):
            elapsed = time.monotonic() - began
            points.append((elapsed, pair.memory()))
            if len(points) % 10 == 1:
                progress(f"{peer.name}: {elapsed:.0f} of {duration:.0f} s")
            time.sleep(duration / STEPS / 10)
        return Course(peer.name, points, {name: load.result().total for name, load in loads.items()})


def table(courses: Sequence[Course]) -> Table:
    """A table of the memory after the warm-up and at the end, and of the work in between."""
    head = ["", "side", "MiB, after warm-up", "MiB, at the end", "growth", "round trips", "GB", "connections"]
    lines = []
    for course in courses:
        for side in course.points[0][1]:
            early, late = course.part(side, WARM, 2 * WARM), course.part(side, 1 - WARM, 1)
            did = [f"{course.did['round trips']:,}", f"{course.did['bytes'] / 1e9:,.1f}", f"{course.did['new connections']:,}"]
            sizes = [f"{value / KIB**2:.1f}" for value in (early, late)]
            lines.append([course.peer, side, *sizes, f"{(late / early - 1) * 100:+.1f} %", *did])
    return Table(f"Resident memory over {courses[0].points[-1][0]:.0f} s of mixed load" if courses else "Nothing", head, lines)


def draw(courses: Sequence[Course], folder: Path) -> Path:
    """Resident memory over time.

    Raises:
        LabError: matplotlib is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = {
        f"{course.peer} {side}": [(at, held[side] / KIB**2) for at, held in course.points]
        for course in courses
        for side in course.points[0][1]
    }
    return plots.lines(folder / "soak.png", "Resident memory under mixed load", ("seconds", "MiB"), series, log=False)
