"""The rounds: every row runs through every pair in turns. So a change of the machine's speed affects all pairs alike."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.bench import pair as pairs
from stcp_proxy.lab.bench.certs import write_certificates
from stcp_proxy.lab.bench.pair import Pair
from stcp_proxy.lab.bench.peer import Peer, Place
from stcp_proxy.lab.bench.rows import OPENING, ROUND_TRIP, Kind, Row
from stcp_proxy.lab.loadgen import LabError, Load

SETTLE: Final = 0.05
"""Seconds to wait after each sample until its connections are closed."""
BULK_LEAD: Final = 0.3
"""In the fairness row, the bulk connection begins this many seconds before the small ones, and ends as many after them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a benchmark run.

    Attributes:
        rows: the measurements.
        peers: the pairs to measure.
        rounds: samples for each row and peer.
        seconds: running time of one sample.
        idle: the number of open connections in the memory row.
        idle_seconds: seconds for which the CPU time of these idle connections is measured.
    """

    rows: tuple[Row, ...]
    peers: tuple[Peer, ...]
    rounds: int = 5
    seconds: float = 2.0
    idle: int = 2000
    idle_seconds: float = 2.0

    @property
    def steps(self) -> int:
        """The largest number of samples that the run takes."""
        memory = any(row.kind is Kind.MEMORY for row in self.rows)
        return len(self.peers) * (self.rounds * (len(self.rows) - memory) + memory)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one row through one pair.

    Attributes:
        load: the result of the load generator.
        cpu: CPU seconds of the pair's processes during the run.
        beside: bytes a second of the bulk connection in the fairness row.
    """

    row: str
    peer: str
    round: int
    load: Load
    cpu: float
    beside: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a pair.

    Attributes:
        connections: the number of idle connections.
        rest: resident bytes by side, before any load.
        held: resident bytes by side, with the idle connections.
        idle_cpu: CPU seconds of the pair for each second with the idle connections.
    """

    peer: str
    connections: int
    rest: dict[str, int]
    held: dict[str, int]
    idle_cpu: float

    def per_connection(self, side: str) -> float:
        """Bytes that one idle connection costs this side."""
        return (self.held[side] - self.rest[side]) / self.connections


@dataclass(slots=True)
class Results:
    """All results of a run.

    Attributes:
        absent: the reason for each peer that was left out, by its name.
        failures: failed samples, as (row, peer, text).
        began: seconds since 1970.
        took: seconds that the whole run took.
    """

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    took: float = 0.0


Progress = Callable[[str], None]
"""Called before each sample with its description."""


def run(plan: Plan, progress: Progress) -> Results:
    """Start all pairs, measure the plan's rows through them in turns, and end the pairs.

    A peer that is missing or does not start is left out and listed. A failed sample is noted, and the run continues.

    Raises:
        LabError: the load generator cannot be built.
    """
    pairs.raise_descriptor_limit()
    loadgen.binary()
    results, start = Results(plan), time.monotonic()
    with ExitStack() as stack:
        target = stack.enter_context(loadgen.echo_server())
        running, far = [], {}
        for peer in plan.peers:
            progress(f"starting {peer.title}")
            try:
                running.append(stack.enter_context(start_pair(peer, target)))
                if any(row.kind is Kind.FIRST_ANSWER and peer.measures(row) for row in plan.rows):
                    far[peer.name] = stack.enter_context(start_pair(peer, target, round_trip=ROUND_TRIP))
            except LabError as exc:
                results.absent[peer.name] = str(exc)
        running = [pair for pair in running if pair.name not in results.absent]
        _measure_memory(plan, running, results, progress)
        for number in range(plan.rounds):
            _measure_round(plan, number, running, far, results, progress)
    results.took = time.monotonic() - start
    return results


@contextmanager
def start_pair(peer: Peer, target: int, *, round_trip: float = 0.0) -> Iterator[Pair]:
    """Set up one pair in a folder of its own, which is removed with the pair.

    Args:
        peer: the kind of pair.
        target: the server's port.
        round_trip: seconds that the path between the two sides takes there and back.

    Raises:
        LabError: the peer is missing, or no message goes through it.
    """
    if why := peer.missing():
        raise LabError(why)
    with ExitStack() as stack:
        if peer.set_up is None:
            port = stack.enter_context(delayed(target, round_trip)) if round_trip else target
            yield Pair(peer.name, port, {})
            return
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stcp-bench-", dir=peer.root / "tmp")))
        write_certificates(here)
        entry, wire = pairs.free_port(), pairs.free_port()
        path = stack.enter_context(delayed(wire, round_trip)) if round_trip else None
        place = Place(Path("/") / here.relative_to(peer.root), entry, wire, target, path, peer.root)
        yield stack.enter_context(pairs.running(peer.name, entry, peer.set_up(place), here))


@contextmanager
def delayed(to: int, round_trip: float) -> Iterator[int]:
    """A path with delay to a port of 127.0.0.1. Yields the port where it begins."""
    port = pairs.free_port()
    command = [sys.executable, "-P", "-m", "stcp_proxy.lab.delay_relay", str(port), str(to), str(round_trip)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        pairs.await_port(port, child)
        yield port
    finally:
        child.kill()
        child.wait()


def _measure_memory(plan: Plan, running: Sequence[Pair], results: Results, progress: Progress) -> None:
    for row in (row for row in plan.rows if row.kind is Kind.MEMORY):
        measured = {peer.name for peer in plan.peers if peer.measures(row)}
        for pair in (pair for pair in running if pair.name in measured):
            progress(f"{row.title}: {pair.name}")
            try:
                rest = pair.memory()
                with loadgen.idle(pair.port, plan.idle):
                    time.sleep(SETTLE)
                    held, before = pair.memory(), pair.cpu_seconds()
                    time.sleep(plan.idle_seconds)
                    cpu = (pair.cpu_seconds() - before) / plan.idle_seconds
                results.memory.append(Memory(pair.name, plan.idle, rest, held, cpu))
            except LabError as exc:
                results.failures.append((row.name, pair.name, str(exc)))


def _measure_round(
    plan: Plan, number: int, running: Sequence[Pair], far: Mapping[str, Pair], results: Results, progress: Progress
) -> None:
    """Run one round. Each round begins with a different peer, so that the order varies."""
    turn = number % max(1, len(running))
    for row in (row for row in plan.rows if row.kind is not Kind.MEMORY):
        measured = {peer.name for peer in plan.peers if peer.measures(row)}
        for near in (*running[turn:], *running[:turn]):
            if near.name not in measured:
                continue
            pair = far[near.name] if row.kind is Kind.FIRST_ANSWER else near
            progress(f"round {number + 1} of {plan.rounds}: {row.title}: {pair.name}")
            try:
                results.samples.append(measure(row, pair, number, plan.seconds))
            except LabError as exc:
                results.failures.append((row.name, pair.name, str(exc)))
            time.sleep(SETTLE)


def measure(row: Row, pair: Pair, number: int, seconds: float) -> Sample:
    """Take one sample.

    Args:
        row: the kind of load.
        pair: the tunnel.
        number: the round's number.
        seconds: running time of the load.

    Raises:
        LabError: the load generator or a connection failed.
    """
    before, beside = pair.cpu_seconds(), None
    if row.kind is Kind.BULK:
        load = loadgen.bulk(pair.port, connections=row.connections, seconds=seconds)
    elif row.kind in OPENING:
        load = loadgen.new_connections(pair.port, clients=row.connections, seconds=seconds)
    elif row.kind is Kind.FAIRNESS:
        load, beside = _beside_bulk(row, pair, seconds)
    else:
        load = loadgen.round_trips(pair.port, connections=row.connections, size=row.size, seconds=seconds)
    if load.errors:
        raise LabError(f"{load.errors} connections failed")
    return Sample(row.name, pair.name, number, load, pair.cpu_seconds() - before, beside)


def _beside_bulk(row: Row, pair: Pair, seconds: float) -> tuple[Load, float]:
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(loadgen.bulk, pair.port, connections=1, seconds=seconds + 2 * BULK_LEAD)
        time.sleep(BULK_LEAD)
        load = loadgen.round_trips(pair.port, connections=row.connections, size=row.size, seconds=seconds)
        return load, bulk.result().rate
