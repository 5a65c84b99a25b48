"""Turns of busy connections: how bulk and small connections share one loop.

A connection with more to do queues itself behind all others. It takes its next turn when it is first in the queue. The size of a
read and the number of frames bound one turn. Where small connections are active, time bounds the turns too: reads become short,
so that a turn takes a fraction of a millisecond. After turns of `TURNS` seconds together, events are served for as long, or until
none is left. So neither bulk data nor a flood of tiny frames delays a small message for much longer than `TURNS`.
"""

from __future__ import annotations

import collections
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


class Owner(Protocol):
    """The object whose step runs."""

    def fail(self, exc: BaseException, /) -> None:
        """End the object because of a bug in one of its steps."""


class Busy(Owner, Protocol):
    """A connection with more to do."""

    def step(self) -> None:
        """Take a turn."""


class Turns:
    """Connections that have more to do, in turn.

    Attributes:
        queue: the connections.
    """

    __slots__ = ("_next_at", "queue")

    def __init__(self) -> None:
        self.queue: Final[collections.deque[Busy]] = collections.deque()
        self._next_at = 0.0
        """When the next turns begin, while events are left to serve; by the clock of `take`."""

    def take(self, *, shared: bool, seen: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Let each queued connection take a turn.

        Args:
            shared: whether small connections are active.
            seen: whether events were served just now, so that more may wait.
            clock: seconds.
        """
        if not shared:
            for _ in range(len(self.queue)):
                self._take_one()
            return
        began = clock()
        if seen and began < self._next_at:
            return
        for _ in range(len(self.queue)):
            self._take_one()
            now = clock()
            self._next_at = now + (now - began)
            if now - began > TURNS:
                return

    def _take_one(self) -> None:
        duplex = self.queue.popleft()
        guarded(duplex, duplex.step)


def guarded(owner: Owner, step: Callable[[], None]) -> None:
    """Run `step`. An exception is a bug of this program: it ends `owner`, and no other connection."""
    try:
        step()
    except Exception as exc:
        owner.fail(exc)
