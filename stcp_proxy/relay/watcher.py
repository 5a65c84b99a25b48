"""The interface by which the user-space engine watches sockets that are not legs of its connections.

So a listener, a wire leg at rest, and a wire leg that waits for the answer to OPEN cost no turn of Trio's loop.

Invariants:
- A watcher is called in Trio's thread, but not by a Trio task. After it has started or woken a task, it calls
  `Watching.wake_trio`, because Trio has already looked at its run queue.
"""

from __future__ import annotations

import collections
from typing import Protocol

from stcp_proxy.relay.deadlines import Deadlines, Timed
from stcp_proxy.relay.turns import Begins, Busy


class Watched(Protocol):
    """A socket, or an epoll set of sockets."""

    def fileno(self) -> int:
        """Its descriptor."""


class Watcher(Protocol):
    """Acts on the events of one socket, or of one epoll set."""

    def on_news(self, mask: int, /) -> None:
        """Handle events of the socket. Level-triggered: it is called again while they last.

        The socket may have no event: within one batch, the event of a closed socket comes to a new socket with the same
        descriptor.

        Args:
            mask: the events, as in epoll.
        """

    def on_lost(self) -> None:
        """The engine has stopped watching this socket."""

    def on_deadline(self) -> None:
        """The time that `Watching.watch` set has passed. The engine still watches the socket."""

    def fail(self, exc: BaseException, /) -> None:
        """Handle an exception of another method, which is a bug of this program. Other connections must go on."""


class Watching(Protocol):
    """An engine that can watch sockets.

    Attributes:
        now: time of the batch of events under way, seconds.
    """

    now: float

    @property
    def begins(self) -> Begins:
        """Bounds the connections that begin on legs at rest in the batch."""

    @property
    def deadlines(self) -> Deadlines[Timed]:
        """The deadlines of watchers, on the clock of `now`."""

    @property
    def again(self) -> collections.deque[Busy]:
        """The queue of those that take a turn behind the events of the batch."""

    def watch(self, sock: Watched, watcher: Watcher, *, mask: int = 1, seconds: float | None = None) -> bool:
        """Watch a socket.

        Args:
            sock: not a leg of this engine.
            watcher: acts on its events.
            mask: epoll's events to watch for. [default: EPOLLIN]
            seconds: time until `on_deadline`; None is no limit.

        Returns:
            False if the engine cannot: Trio's loop does not drive it, or it is closed.
        """

    def unwatch(self, sock: Watched, watcher: Watcher) -> None:
        """Stop watching a socket, before its owner closes it or gives it away."""

    def wake_trio(self) -> None:
        """Let Trio look at its run queue again soon."""
