"""The loop polls before it sleeps only where polls find events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.fast_path import Lane

from .driven import Bench, needs_lane

pytestmark = needs_lane
WAIT = 2e-3
"""Seconds of a wait that is long enough to poll in it."""


class Quiet:
    """An engine with a quiet connection. Each `wait` comes right after a single event."""

    def __init__(self) -> None:
        self.bench = Bench(compiled=True)
        self.bench.turn()
        assert self.bench.engine.lane is not None
        self.lane: Lane = self.bench.engine.lane

    def wait(self) -> None:
        self.lane.gap = 0.0
        self.bench.engine.turn(WAIT)


@pytest.fixture
def quiet() -> Iterator[Quiet]:
    quiet = Quiet()
    yield quiet
    quiet.bench.close()


def test_a_poll_that_finds_nothing_counts(quiet: Quiet) -> None:
    assert quiet.lane.found == 1
    quiet.wait()
    assert quiet.lane.found == pytest.approx(15 / 16)


def test_an_event_that_is_there_already_says_nothing(quiet: Quiet) -> None:
    quiet.bench.peer.send(quiet.bench.sealer.seal(FrameType.DATA, b"words"))
    quiet.wait()
    assert quiet.lane.found == 1
    assert quiet.bench.delivered() == b"words"


def test_where_polls_find_nothing_one_chance_of_fifteen_is_tried(quiet: Quiet) -> None:
    quiet.lane.found = 0.2
    tried = 0
    for _ in range(30):
        before = quiet.lane.found
        quiet.wait()
        tried += quiet.lane.found != before
    assert tried == 2
