"""Many legs at rest on which a connection begins at once: each batch of events begins few, and none is forgotten."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from stcp_proxy.relay import turns
from stcp_proxy.relay.fast_path import compiled
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.relay.turns import BEGINS, Begins
from stcp_proxy.session.peer_leg import PeerLeg
from stcp_proxy.tunnel.leg_watch import LegWatch

LEGS = 20


def test_the_first_of_a_batch_may_always_begin() -> None:
    begins, now = Begins(), [10.0]
    assert begins.may(10.0, lambda: now[0])
    now[0] += BEGINS * 0.9
    assert begins.may(10.0, lambda: now[0])
    now[0] += BEGINS * 0.2
    assert not begins.may(10.0, lambda: now[0])
    assert begins.may(10.1, lambda: 11.0)
    assert not begins.may(10.1, lambda: 11.0)


class Holder:
    """Begins a connection on a leg, which takes `cost` seconds."""

    def __init__(self, clock: list[float], cost: float) -> None:
        self.clock, self.cost, self.begun = clock, cost, list[Any]()

    def read(self, leg: PeerLeg) -> None:
        leg.stream.socket.recv(1)
        self.begun.append(leg)
        self.clock[0] += self.cost

    def watch_lost(self, leg: PeerLeg) -> None: ...

    def drop(self, leg: PeerLeg) -> None: ...


class FakeLeg:
    """A leg with a socket and nothing else."""

    def __init__(self, sock: socket.socket) -> None:
        self.stream, self.name = self, "leg"
        self.socket = sock


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.skipif(not compiled(), reason="the fast path was not built"))]
)
def engine(request: pytest.FixtureRequest) -> Iterator[PumpEngine]:
    engine, guest = PumpEngine(compiled=request.param), os.eventfd(0)
    engine.start_driven(guest)
    yield engine
    engine.close()
    os.close(guest)


def test_a_batch_begins_few_and_the_rest_follow(engine: PumpEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = [0.0]
    monkeypatch.setattr(turns.Begins.may, "__defaults__", (lambda: engine.now + passed[0],))
    holder = Holder(passed, BEGINS * 0.6)
    pairs, watches = [socket.socketpair() for _ in range(LEGS)], list[LegWatch]()
    for own, peer in pairs:
        own.setblocking(False)
        watches.append(LegWatch(engine, cast("PeerLeg", FakeLeg(own)), holder))
        engine.watch(own, watches[-1])
        peer.send(b"x")
    counts = []
    while len(holder.begun) < LEGS:
        before, passed[0] = len(holder.begun), 0.0
        engine.turn(0)
        counts.append(len(holder.begun) - before)
        assert len(counts) < 2 * LEGS
    assert counts == [2] * (LEGS // 2)
    assert len({id(leg) for leg in holder.begun}) == LEGS
    for watch in watches:
        watch.end()
    for own, peer in pairs:
        own.close()
        peer.close()
