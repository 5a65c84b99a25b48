"""Busy connections and small ones share the loop by time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, FrameType
from stcp_proxy.relay import turns
from stcp_proxy.relay.duplex import Duplex
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd
from stcp_proxy.relay.fast_path import compiled
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.relay.turns import DENSE, PAUSE, SHARED_FOR, SHARED_READ, TURNS, SmallReads, Turns

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))


class Busy:
    """A connection whose turns take time and never end."""

    def __init__(self, bench: Bench, cost: float) -> None:
        self.bench, self.cost, self.taken, self.is_bulk = bench, cost, 0, True
        self.failed: BaseException | None = None

    def step(self) -> None:
        self.taken += 1
        self.bench.now += self.cost
        self.bench.turns.queue.append(self)

    def fail(self, exc: BaseException) -> None:
        self.failed = exc


class Bench:
    """Turns by a clock of the test's own."""

    def __init__(self, *costs: float) -> None:
        self.now = 100.0
        self.turns = Turns()
        self.small = SmallReads()
        self.busy = [Busy(self, cost) for cost in costs]
        self.turns.queue.extend(self.busy)

    def read_small(self, *, every: float, times: int = 1) -> None:
        for _ in range(times):
            self.now += every
            self.small.note(self.now)

    def take(self, *, shared: bool = True, seen: bool = False) -> list[int]:
        self.small.small_at = self.now - (0 if shared else 2 * SHARED_FOR)
        before = [each.taken for each in self.busy]
        self.turns.take(self.small, seen=seen, clock=lambda: self.now)
        return [each.taken - taken for each, taken in zip(self.busy, before, strict=True)]

    def pause(self) -> float:
        return self.turns.pause(self.small, lambda: self.now)


def test_the_mean_distance_of_small_reads_goes_over_the_last_few() -> None:
    bench = Bench()
    bench.read_small(every=100.0)
    assert bench.small.small_gap == SHARED_FOR
    bench.read_small(every=1e-4, times=40)
    assert bench.small.small_gap == pytest.approx(1e-4, rel=0.3)
    bench.read_small(every=100.0)
    assert bench.small.small_gap < DENSE, "one pause of the client is not the end"
    bench.read_small(every=100.0, times=3)
    assert bench.small.small_gap > DENSE


def test_without_small_connections_each_takes_a_turn() -> None:
    bench = Bench(*[TURNS] * 8)
    assert [bench.take(shared=False, seen=True) for _ in range(2)] == [[1] * 8] * 2


def test_with_small_connections_turns_end_after_their_time_and_go_on_in_order() -> None:
    bench = Bench(*[0.6 * TURNS] * 5)
    assert bench.take() == [1, 1, 0, 0, 0]
    assert bench.take() == [0, 0, 1, 1, 0]
    assert bench.take() == [1, 0, 0, 0, 1]


def test_events_have_as_much_time_as_the_turns_before() -> None:
    bench = Bench(2 * TURNS)
    assert bench.take(seen=True) == [1]
    bench.now += 1.9 * TURNS
    assert bench.take(seen=True) == [0], "events are left to serve"
    bench.now += 0.2 * TURNS
    assert bench.take(seen=True) == [1]


def test_no_time_passes_unused() -> None:
    bench = Bench(2 * TURNS)
    assert bench.take(seen=True) == [1]
    assert bench.take(seen=False) == [1]


def test_where_small_messages_are_dense_bulk_pauses_for_as_long_as_its_turns_took() -> None:
    bench = Bench(0.5 * PAUSE)
    bench.read_small(every=0.1 * DENSE, times=50)
    assert bench.take() == [1]
    bench.now += 0.2 * PAUSE
    assert bench.take() == [0], "although no event is left to serve"
    assert bench.pause() == pytest.approx(0.3 * PAUSE)
    bench.now += 0.31 * PAUSE
    assert bench.pause() == 0
    assert bench.take() == [1]


def test_a_pause_is_bounded() -> None:
    bench = Bench(3 * PAUSE)
    bench.read_small(every=0.1 * DENSE, times=50)
    assert bench.take() == [1]
    assert bench.pause() == pytest.approx(PAUSE)


def test_a_heartbeat_beside_bulk_makes_no_pause() -> None:
    bench = Bench(0.5 * PAUSE)
    bench.read_small(every=2 * DENSE, times=200)
    assert [bench.take() for _ in range(3)] == [[1]] * 3
    assert bench.pause() == 0


def test_messages_that_were_dense_make_no_pause_once_they_have_ended() -> None:
    bench = Bench(0.5 * PAUSE)
    bench.read_small(every=0.1 * DENSE, times=50)
    assert bench.take() == [1]
    assert bench.pause() > 0
    bench.small.small_at -= 2 * SHARED_FOR
    assert bench.pause() == 0
    assert bench.take(shared=False) == [1]


def test_a_pause_of_bulk_holds_no_small_connection_up() -> None:
    bench = Bench(0.2 * PAUSE, 0.1 * PAUSE)
    bench.busy[1].is_bulk = False
    bench.read_small(every=0.1 * DENSE, times=50)
    assert bench.take() == [1, 1]
    assert bench.pause() == 0
    assert bench.take() == [0, 1]


def test_many_bulk_connections_share_one_pause() -> None:
    bench = Bench(*[0.4 * TURNS] * 40)
    bench.read_small(every=0.1 * DENSE, times=50)
    assert sum(bench.take()) == 3
    assert bench.pause() == pytest.approx(1.2 * TURNS)
    assert sum(bench.take()) == 0


def test_a_bug_in_a_turn_ends_its_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(0.0, 0.0)
    error = RuntimeError("a bug")

    def fail() -> None:
        raise error

    monkeypatch.setattr(bench.busy[0], "step", fail)
    assert bench.take() == [0, 1]
    assert bench.busy[0].failed is error


# -- in the engine ------------------------------------------------------------------------------------------------------------


class Relayed:
    """A connection in an engine that the test drives."""

    def __init__(self, engine: PumpEngine) -> None:
        self.app, plain = socket.socketpair()
        wire, self.peer = socket.socketpair()
        for sock in (self.app, plain, wire, self.peer):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.ends: list[RelayEnd] = []
        keys = DirectionKey(TO_WIRE, 0), DirectionKey(FROM_WIRE, 0)
        self.relay: Duplex = engine.adopt(Handover(plain, wire, *keys), self.ends.append)
        self.sealer = Sealer(FROM_WIRE)

    def receive(self, size: int) -> None:
        """Let the peer send a number of bytes."""
        while size:
            part = min(size, MAX_PLAINTEXT)
            frame = self.sealer.seal(FrameType.DATA, bytes(part))
            assert self.peer.send(frame) == len(frame)
            size -= part

    def close(self) -> None:
        self.app.close()
        self.peer.close()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not compiled(), reason="the fast path is not built"))])
def engine(request: pytest.FixtureRequest) -> Iterator[PumpEngine]:
    guest = os.eventfd(0)
    engine = PumpEngine(compiled=request.param)
    engine.start_driven(guest)
    yield engine
    engine.close()
    os.close(guest)


@pytest.fixture
def relayed(engine: PumpEngine) -> Iterator[Any]:
    made: list[Relayed] = []

    def make() -> Relayed:
        made.append(Relayed(engine))
        return made[-1]

    yield make
    for each in made:
        each.close()


def moved(relay: Relayed, step: Any) -> tuple[int, int]:
    """Bytes that a step moves in each direction."""
    before = relay.relay.counts()
    step()
    up, down = (now - then for now, then in zip(relay.relay.counts(), before, strict=True))
    return up, down


def test_reads_are_short_while_small_connections_are_active(
    engine: PumpEngine, relayed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, bulk = relayed(), relayed()
    engine.turn(0)
    bulk.app.send(bytes(700_000))
    assert engine.read_size == engine.chunk
    assert moved(bulk, bulk.relay._up)[0] == 700_000
    small.app.send(b"words")
    engine.turn(0)
    assert engine.read_size == SHARED_READ
    bulk.app.send(bytes(700_000))
    bulk.receive(700_000)
    assert moved(bulk, bulk.relay._up) == (SHARED_READ, 0)
    assert 0 < moved(bulk, bulk.relay._down)[1] < SHARED_READ
    engine.now += 2 * SHARED_FOR  # once would depend on rounding
    assert engine.read_size == engine.chunk


def test_a_queued_connection_takes_no_turn_by_an_event(engine: PumpEngine, relayed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would have one turn for each event and one for the queue."""
    small, bulk = relayed(), relayed()
    small.app.send(b"words")
    engine.turn(0)
    engine._small.small_at = engine.now + 60  # it stays active, however slow the machine is
    monkeypatch.setattr(turns.Turns, "take", lambda *_args, **_options: None)
    bulk.app.send(bytes(400_000))
    bulk.receive(400_000)
    up, down = moved(bulk, lambda: engine.turn(0))
    assert 0 < up <= SHARED_READ
    assert down <= SHARED_READ
    bulk.app.send(b"more")
    bulk.receive(4)
    small.app.send(b"words")
    assert moved(bulk, lambda: engine.turn(0)) == (0, 0)
    monkeypatch.undo()
    while moved(bulk, lambda: engine.turn(0)) != (0, 0) or engine.again:
        pass
    assert bulk.relay.counts() == (400_004, 400_004)


def test_the_end_of_a_queued_connection_is_seen_in_its_turn(engine: PumpEngine, relayed: Any) -> None:
    small, bulk = relayed(), relayed()
    small.app.send(b"words")
    engine.turn(0)
    bulk.app.send(bytes(400_000))
    engine.turn(0)
    bulk.app.shutdown(socket.SHUT_WR)
    bulk.receive(10)
    frame = bulk.sealer.seal(FrameType.FIN)
    assert bulk.peer.send(frame) == len(frame)
    for _ in range(2000):
        engine.turn(0)
        if bulk.ends:
            break
    assert bulk.ends == [RelayEnd(EndReason.FINISHED, 400_000, 10)]


def test_the_engine_keeps_the_mean_distance_of_small_reads(engine: PumpEngine, relayed: Any) -> None:
    small = relayed()
    engine.turn(0)
    expected = SmallReads()
    expected.note(engine.now)
    for _ in range(20):
        small.app.send(b"words")
        engine.turn(0)
        expected.note(engine.now)
        assert engine._small.small_at == engine.now
    assert engine._small.small_gap == pytest.approx(expected.small_gap, abs=SHARED_FOR / 20)


def test_the_engine_sleeps_through_a_pause_unless_trio_waits(engine: PumpEngine, relayed: Any) -> None:
    bulk = relayed()
    engine.turn(0)
    soon = engine.now + 60
    engine._small.small_at, engine._small.small_gap = soon, 0.0  # small messages are dense, however slow the machine is
    bulk.app.send(bytes(700_000))
    engine.turn(0)
    assert engine.again
    engine._turns._bulk_at = soon
    assert engine._timeout(0) == 0
    assert 1 < (engine._timeout(None) or 0) <= 60
    moved_before = bulk.relay.counts()[0]
    engine.turn(0)
    assert bulk.relay.counts()[0] == moved_before < 700_000
    while engine.again:
        engine._turns._bulk_at = min(engine._turns._bulk_at, engine.now + PAUSE)
        engine.turn(None)
    assert bulk.relay.counts() == (700_000, 0)


def test_acknowledgements_against_bulk_do_not_make_a_connection_small(engine: PumpEngine, relayed: Any) -> None:
    bulk = relayed()
    engine.turn(0)
    bulk.app.send(bytes(400_000))
    bulk.receive(8)
    engine.turn(0)
    assert bulk.relay.counts() == (400_000, 8)
    assert engine.read_size == engine.chunk
