"""Turns of busy connections: how bulk and small connections share one loop.

A connection with more to do queues itself behind all others. It takes its next turn when it is first in the queue. The size of a
read and the number of frames bound one turn. Where small connections are active, time bounds the turns too: reads become short,
so that a turn takes a fraction of a millisecond. After turns of `TURNS` seconds together, events are served for as long, or until
none is left. So neither bulk data nor a flood of tiny frames delays a small message for much longer than `TURNS`.
"""

from __future__ import annotations

import collections
import itertools
import os
import select
import time
from collections.abc import Callable
from typing import Final, Protocol

from stcp_proxy.protocol.wire import MAX_FRAME

SMALL: Final = 16_384
"""Bytes of a read below which a connection may be small."""
BULK_FOR: Final = 0.1
"""Seconds after a larger read for which a connection is not small: its small reads are answers to bulk data."""
SHARED_READ: Final = 2 * MAX_FRAME
"""Limit of one read while small connections are active, bytes."""
SHARED_FOR: Final = 5e-3
"""Seconds for which a small connection counts as active."""
TURNS: Final = 0.5e-3
"""Seconds of turns after which events are served, where small connections are active."""
DENSE: Final = 1e-3
"""Mean time between two small reads, in seconds, below which small messages are dense. A heartbeat beside bulk is not."""
WEIGHT: Final = 8
"""Small reads over which the mean goes, about."""
PAUSE: Final = 1e-3
"""Longest pause of bulk, seconds: a turn in which the process did not run is no reason for more."""
BEGINS: Final = 1e-3
"""Seconds of a batch of events after which no further connection begins on a leg at rest."""
_LOOKED_AT: Final = 16
"""Queued connections that are looked at before a pause. The others are taken for bulk."""


class Owner(Protocol):
    """The object whose step runs."""

    def fail(self, exc: BaseException, /) -> None:
        """End the object because of a bug in one of its steps."""


class Busy(Owner, Protocol):
    """A connection with more to do."""

    @property
    def is_bulk(self) -> bool:
        """Whether a read of it was not small a moment ago."""

    def step(self) -> None:
        """Take a turn."""


class Small(Protocol):
    """What is known of small reads; the fast path keeps it too.

    Attributes:
        small_at: time of the last small read, seconds.
        small_gap: mean time between two of them, seconds; at most `SHARED_FOR`.
    """

    small_at: float
    small_gap: float


class SmallReads:
    """The small reads of an engine without the fast path. Fulfils `Small`."""

    def __init__(self) -> None:
        self.small_at = -SHARED_FOR
        self.small_gap = SHARED_FOR

    def note(self, now: float) -> None:
        """Note a small read."""
        self.small_gap += (min(now - self.small_at, SHARED_FOR) - self.small_gap) / WEIGHT
        self.small_at = now


def are_active(small: Small, now: float) -> bool:
    """Whether there was a small read a moment ago."""
    return now - small.small_at < SHARED_FOR


class Turns:
    """Connections that have more to do, in turn.

    Attributes:
        queue: the connections.
    """

    __slots__ = ("_bulk_at", "_next_at", "queue")

    def __init__(self) -> None:
        self.queue: Final[collections.deque[Busy]] = collections.deque()
        self._next_at = 0.0
        """When the next turns begin where events are left to serve."""
        self._bulk_at = 0.0
        """When the next turns of bulk begin where small messages are dense."""

    def take(self, small: Small, *, seen: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Let each queued connection take a turn.

        Args:
            small: the small reads.
            seen: whether events were served just now, so that more may wait.
            clock: seconds.
        """
        began = clock()
        if not are_active(small, began):
            for _ in range(len(self.queue)):
                self._take_one()
            return
        if seen and began < self._next_at:
            return
        pauses = small.small_gap < DENSE and began < self._bulk_at
        for _ in range(len(self.queue)):
            if (is_bulk := self.queue[0].is_bulk) and pauses:
                self.queue.rotate(-1)
                continue
            self._take_one()
            now = clock()
            self._next_at = now + (now - began)
            if is_bulk:
                self._bulk_at = now + min(now - began, PAUSE)
            if now - began > TURNS:
                return

    def pause(self, small: Small, clock: Callable[[], float] = time.monotonic) -> float:
        """Seconds until the next turns, for which the engine can wait for events."""
        now = clock()
        if now >= self._bulk_at or small.small_gap >= DENSE or not are_active(small, now):
            return 0.0
        if all(each.is_bulk for each in itertools.islice(self.queue, _LOOKED_AT)):
            return self._bulk_at - now
        return 0.0

    def _take_one(self) -> None:
        duplex = self.queue.popleft()
        guarded(duplex, duplex.step)


class Begins:
    """Bounds the connections that begin on legs at rest in one batch of events. The first of a batch may always begin.

    So a peer with many legs delays no live connection for long.
    """

    __slots__ = ("_batch",)

    def __init__(self) -> None:
        self._batch = -1.0

    def may(self, batch: float, clock: Callable[[], float] = time.monotonic) -> bool:
        """Whether one more connection may begin.

        Args:
            batch: time of the batch under way.
            clock: seconds.
        """
        is_first, self._batch = batch != self._batch, batch
        return is_first or clock() - batch < BEGINS


def poll_briefly(epoll: select.epoll, wait: float, most: int) -> list[tuple[int, int]]:
    """Wait for events for less than the millisecond that `epoll.poll` rounds up to."""
    until = time.monotonic() + wait
    while not (events := epoll.poll(0, most)) and time.monotonic() < until:
        os.sched_yield()
    return events


def guarded(owner: Owner, step: Callable[[], None]) -> None:
    """Run `step`. An exception is a bug of this program: it ends `owner`, and no other connection."""
    try:
        step()
    except Exception as exc:
        owner.fail(exc)
