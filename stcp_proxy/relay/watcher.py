"""The interface by which the user-space engine watches sockets that are not legs of its connections.

So a listener, a wire leg at rest, and a wire leg that waits for the answer to OPEN cost no turn of Trio's loop.

Invariants:
- A watcher is called in Trio's thread, and not by a Trio task. It may start tasks and wake them, and calls `Watching.wake_trio`
  afterwards: Trio has looked at its run queue before.
"""

from __future__ import annotations

import socket
from typing import Protocol


class Watcher(Protocol):
    """Acts on the events of one socket."""

    def on_news(self, mask: int, /) -> None:
        """Handle events of the socket, `mask` as in epoll. Level-triggered: it is called again while they last.

        The socket may have none: the event of an old socket comes to a new one that has got its descriptor within one batch.
        """

    def on_lost(self) -> None:
        """The engine has stopped watching this socket."""

    def on_deadline(self) -> None:
        """The time that `Watching.watch` set has passed. The engine still watches the socket."""

    def fail(self, exc: BaseException, /) -> None:
        """Another method raised: a bug of this program. It must not end other connections."""


class Watching(Protocol):
    """An engine that can watch sockets."""

    def watch(self, sock: socket.socket, watcher: Watcher, *, mask: int = 1, seconds: float | None = None) -> bool:
        """Watch a socket.

        Args:
            sock: not a leg of this engine.
            watcher: acts on its events.
            mask: epoll's events to watch for. [default: EPOLLIN]
            seconds: time until `on_deadline`; None is no limit.

        Returns:
            False if the engine cannot: Trio's loop does not drive it, or it is closed.
        """

    def unwatch(self, sock: socket.socket, watcher: Watcher) -> None:
        """Stop watching a socket, before its owner closes it or gives it away."""

    def wake_trio(self) -> None:
        """Let Trio look at its run queue again soon."""
