"""Connections of one tunnel that have proved nothing yet, and who of them gives up its place first.

Places are few and strangers are many. The one that has been silent for longest goes, once it has had its second.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

import trio

from stcp_proxy.session.record import Connection

SILENCE: Final = 1.0
"""Seconds of silence after which a stranger gives up its place to the next one, when all places are taken."""


@dataclass(slots=True)
class _Stranger:
    """A connection that has proved nothing.

    Attributes:
        since: when it was accepted, or last heard, on Trio's clock.
        scope: ends it.
        sock: its socket.
    """

    since: float
    scope: trio.CancelScope
    sock: socket.socket

    @property
    def has_unread(self) -> bool:
        """Whether it has said something that this side, busy with others, has not come to read."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False


class Unauthenticated:
    """Those of one tunnel."""

    def __init__(self) -> None:
        self._known: dict[Connection, _Stranger] = {}
        """The longest silent first."""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._known

    def add(self, connection: Connection, scope: trio.CancelScope, sock: socket.socket) -> None:
        """One has just been accepted; `scope` ends it."""
        self._known[connection] = _Stranger(trio.current_time(), scope, sock)

    def heard(self, connection: Connection) -> None:
        """It has said something, so that its second begins anew."""
        stranger = self._known.pop(connection, None)
        if stranger is not None:
            stranger.since = trio.current_time()
            self._known[connection] = stranger

    def forget(self, connection: Connection) -> bool:
        """It is none any more. Returns whether it was one."""
        return self._known.pop(connection, None) is not None

    @property
    def patience(self) -> float:
        """Seconds that the longest silent one still has; infinity where there is none."""
        for stranger in self._known.values():
            return stranger.since + SILENCE - trio.current_time()
        return float("inf")

    def give_up_oldest(self) -> None:
        """End the one that has been silent for longest."""
        self._known.pop(next(iter(self._known))).scope.cancel()

    def make_room(self) -> float:
        """Give up the oldest if it has had its second, and nothing of it waits to be read. Returns seconds until the next may
        go."""
        left = self.patience
        if left > 0:
            return left
        oldest, stranger = next(iter(self._known.items()))
        if stranger.has_unread:
            self.heard(oldest)
            return 0.0
        self.give_up_oldest()
        return SILENCE
