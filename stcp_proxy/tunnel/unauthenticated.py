"""The sessions of one tunnel whose peer has not authenticated, and which of them loses its place first.

When all places are taken, the session that has been silent for longest loses its place, but not within the first second of
silence.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from stcp_proxy.session.record import Connection

SILENCE: Final = 1.0
"""Seconds of silence after which a session loses its place to a newcomer, when all places are taken."""


class Session(Protocol):
    """The session of a connection."""

    def cancel(self) -> None:
        """End it."""


@dataclass(slots=True)
class _Stranger:
    """An unauthenticated connection.

    Attributes:
        since: when it was accepted, or when it last sent a valid message, on Trio's clock.
        session: its session.
        sock: its socket.
    """

    since: float
    session: Session
    sock: socket.socket

    @property
    def has_unread(self) -> bool:
        """Whether bytes wait that this side has not read yet."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False


class Unauthenticated:
    """The unauthenticated sessions of one tunnel."""

    def __init__(self) -> None:
        self._known: dict[Connection, _Stranger] = {}
        """The session that has been silent for longest is first."""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._known

    def add(self, connection: Connection, session: Session, sock: socket.socket) -> None:
        """Add a session.

        Args:
            connection: its record.
            session: its session.
            sock: its wire leg.
        """
        self._known[connection] = _Stranger(trio.current_time(), session, sock)

    def heard(self, connection: Connection) -> None:
        """Note a valid message of a session: its time of silence begins again."""
        stranger = self._known.pop(connection, None)
        if stranger is not None:
            stranger.since = trio.current_time()
            self._known[connection] = stranger

    def forget(self, connection: Connection) -> bool:
        """Remove a session that has authenticated or ended. Returns whether it was here."""
        return self._known.pop(connection, None) is not None

    @property
    def patience(self) -> float:
        """Seconds until the session that has been silent for longest may lose its place; infinity without sessions."""
        for stranger in self._known.values():
            return stranger.since + SILENCE - trio.current_time()
        return float("inf")

    def give_up_oldest(self) -> None:
        """End the session that has been silent for longest."""
        self._known.pop(next(iter(self._known))).session.cancel()

    def make_room(self) -> float:
        """End the session that has been silent for longest, unless its time is not over or bytes of it wait to be read.

        Returns:
            Seconds until the next session may be ended.
        """
        left = self.patience
        if left > 0:
            return left
        oldest, stranger = next(iter(self._known.items()))
        if stranger.has_unread:
            self.heard(oldest)
            return 0.0
        self.give_up_oldest()
        return SILENCE
