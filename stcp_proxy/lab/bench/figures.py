"""Results from samples: medians, ratios of pairs measured in the same round, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from stcp_proxy.lab.bench.measure import Memory, Results, Sample
from stcp_proxy.lab.bench.peer import Peer, Role
from stcp_proxy.lab.bench.rows import ROUND_TRIP, Kind, Row

KIB: Final = 1 << 10
IDLE_BUDGET: Final = 12 * KIB
"""Bytes that an idle connection may cost one proxy."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target and the measured value.

    Attributes:
        text: what is measured, for a table.
        wanted: the smallest value that meets the target; the largest with `at_most`.
        value: the measured value; None when the run has not measured it.
    """

    text: str
    wanted: float
    value: float | None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a measurement."""
        if self.value is None:
            return None
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted


Metric = Callable[[Sample], float | None]


def rate(sample: Sample) -> float:
    """Operations a second; bytes a second for bulk."""
    return sample.load.rate


def p50(sample: Sample) -> float | None:
    """Median latency in microseconds; None for bulk."""
    return sample.load.p50


def p99(sample: Sample) -> float | None:
    """99th percentile of latency in microseconds; None for bulk."""
    return sample.load.p99


class Figures:
    """Results computed from the samples of one run.

    Args:
        results: the samples. Peers that were left out have no figures.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self.rows = results.plan.rows
        self.peers = tuple(peer for peer in results.plan.peers if peer.name not in results.absent)
        self._samples: dict[tuple[str, str], dict[int, Sample]] = {}
        for sample in results.samples:
            self._samples.setdefault((sample.row, sample.peer), {})[sample.round] = sample

    def median(self, row: str, peer: str, metric: Metric) -> float | None:
        """Median of a metric over the rounds; None when there is no sample."""
        values = [metric(sample) for sample in self._samples.get((row, peer), {}).values()]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, row: str, one: str, other: str, metric: Metric = rate) -> float | None:
        """Median over the rounds of `one` divided by `other`, each measured in the same round."""
        ours, theirs = self._samples.get((row, one), {}), self._samples.get((row, other), {})
        found = []
        for number in ours.keys() & theirs.keys():
            above, below = metric(ours[number]), metric(theirs[number])
            if above is not None and below:
                found.append(above / below)
        return statistics.median(found) if found else None

    def best_tls(self, row: str, *, resumes: bool = True) -> str | None:
        """The name of the TLS peer with the highest rate in this row; None without a measurement.

        Args:
            row: name of the row.
            resumes: whether peers that resume sessions count too. Without them, every connection has a full handshake.
        """
        chosen = [peer for peer in self.peers if peer.role is Role.TLS and (resumes or not peer.resumes)]
        rates = {peer.name: self.median(row, peer.name, rate) for peer in chosen}
        known = {name: value for name, value in rates.items() if value is not None}
        return max(known, key=known.__getitem__) if known else None

    def round_trips(self, row: str, peer: str) -> float | None:
        """Round trips of the path from connect to the first answer: the median latency by that of the path."""
        latency = self.median(row, peer, p50)
        return None if latency is None else latency / 1e6 / ROUND_TRIP

    def cpu_per_operation(self, row: Row, peer: str) -> float | None:
        """CPU seconds of the pair per GB (bulk), per 100,000 round trips, per 1,000 new connections."""
        samples = self._samples.get((row.name, peer), {}).values()
        total = sum(sample.load.total for sample in samples)
        if not total or row.kind is Kind.FAIRNESS:
            return None
        unit = {Kind.BULK: 1e9, Kind.NEW_CONNECTIONS: 1e3, Kind.FIRST_ANSWER: 1e3}.get(row.kind, 1e5)
        return sum(sample.cpu for sample in samples) / total * unit

    def memory(self, peer: str) -> Memory | None:
        """The memory of a peer's pair; None when it was not measured."""
        return next((memory for memory in self.results.memory if memory.peer == peer), None)

    def worst_idle(self, peer: str) -> float | None:
        """Bytes per idle connection, of the side with the higher value."""
        memory = self.memory(peer)
        return max((memory.per_connection(side) for side in memory.rest), default=None) if memory else None

    def ours(self) -> tuple[Peer, ...]:
        """The pairs of this project."""
        return tuple(peer for peer in self.peers if peer.role is Role.OURS)

    def failed(self) -> bool:
        """Whether this project failed in a row or did not start."""
        ours = {peer.name for peer in self.results.plan.peers if peer.role is Role.OURS and not peer.missing()}
        return any(peer in ours for _, peer, _ in self.results.failures) or bool(ours & self.results.absent.keys())


def targets(figures: Figures, peer: str) -> tuple[Target, ...]:
    """The project's targets for one of its engines, for the rows of this run."""
    return tuple(target for row in figures.rows for target in _targets_of(figures, row, peer))


def _targets_of(figures: Figures, row: Row, peer: str) -> Iterable[Target]:
    best = figures.best_tls(row.name)
    if row.kind is Kind.ROUND_TRIPS and best:
        wanted = 1.0 if row.connections == 1 else 1.15
        yield Target(f"{row.title}: rate against {best}", wanted, figures.ratio(row.name, peer, best))
        yield Target(f"{row.title}: p99 against {best}", 1.0, figures.ratio(row.name, peer, best, p99), at_most=True)
    against_plain = {"rt-256x50": 0.9, "rt-16kx10": 1.0, "rt-64kx5": 1.0, "bulk-1": 1.0, "bulk-4": 1.0}
    if row.name in against_plain:
        yield Target(f"{row.title}: rate against plain", against_plain[row.name], figures.ratio(row.name, peer, "plain"))
    if row.kind is Kind.NEW_CONNECTIONS:
        fresh = peer == "stcp-fresh"  # it makes a full handshake; its rival must make one too
        if other := figures.best_tls(row.name, resumes=not fresh):
            yield Target(f"{row.title}: rate against {other}", 1.1 if fresh else 1.5, figures.ratio(row.name, peer, other))
            if row.connections > 1 and not fresh:
                yield Target(f"{row.title}: p99 against {other}", 1.0, figures.ratio(row.name, peer, other, p99), at_most=True)
    if row.kind is Kind.FIRST_ANSWER and peer == "stcp":
        yield Target(f"{row.title}: round trips", 1.1, figures.round_trips(row.name, peer), at_most=True)
    if row.kind is Kind.FAIRNESS:
        yield Target(f"{row.title}: p99 against haproxy", 3.0, figures.ratio(row.name, peer, "haproxy", p99), at_most=True)
    if row.kind is Kind.MEMORY:
        idle = figures.worst_idle(peer)
        yield Target("KiB per idle connection", IDLE_BUDGET / KIB, None if idle is None else idle / KIB, at_most=True)


FLOOR: Final = (("rt-256x50", "haproxy", 0.9), ("bulk-1", "haproxy", 1.2))
"""The required minimum: row, peer, and ratio."""


def floor(figures: Figures, peer: str) -> tuple[Target, ...]:
    """The required minimum for one of the project's engines, for the rows of this run."""
    titles = {row.name: row.title for row in figures.rows}
    return tuple(
        Target(f"{titles[row]}: rate against {other}", wanted, figures.ratio(row, peer, other))
        for row, other, wanted in FLOOR
        if row in titles
    )
