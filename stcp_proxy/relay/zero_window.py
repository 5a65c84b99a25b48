"""Why a leg takes no bytes, and who is to end it: what keeps a pause apart from a death.

Linux ends a connection by TCP_USER_TIMEOUT even when its other end is alive and only does not read: a zero window that answers
every probe counts as unacknowledged (tcp_probe_timer). An application that pauses would lose its connection for it, and not only
where a send came up short: what waits may have fitted into the send buffer. So whoever owns a leg looks at it now and then:

- nothing waits, or the other end has acknowledged something since the last look, or segments are under way: TCP_USER_TIMEOUT
  is as it was, and decides;
- bytes wait, none is under way, nothing moves: the window is closed. TCP_USER_TIMEOUT is lifted, and probes without an answer
  are counted here instead.

What is known comes from TCP_INFO (struct tcp_info, linux/tcp.h).
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
from dataclasses import dataclass
from typing import Final

_TCP_INFO: Final = struct.Struct("=3xB20xI92xQ16xI")
"""tcpi_probes is the fourth byte; tcpi_unacked stands at 24, tcpi_bytes_acked at 120, tcpi_notsent_bytes at 144."""
_DEAD_AFTER_PROBES: Final = 4


class Look(enum.Enum):
    """What a look at a leg found."""

    AT_REST = enum.auto()
    """Nothing waits: no need to look again before something is sent."""
    WAITING = enum.auto()
    """Bytes wait, or are under way."""
    DEAD = enum.auto()
    """The other end does not answer any more."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """How far a leg's other end has come.

    Attributes:
        unanswered_probes: window probes that it has left without an answer.
        unacknowledged: segments under way.
        acknowledged: bytes it has taken since the beginning.
        waiting: bytes not sent yet.
    """

    unanswered_probes: int
    unacknowledged: int
    acknowledged: int
    waiting: int

    @classmethod
    def of(cls, leg: socket.socket) -> Standstill:
        """Ask about a TCP socket. One that cannot tell has nothing under way."""
        try:
            return cls(*_TCP_INFO.unpack(leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)))
        except (OSError, struct.error):
            return cls(0, 0, 0, 0)


class LegWatch:
    """Looks at one TCP leg, and lifts and restores its TCP_USER_TIMEOUT.

    Args:
        leg: a connected TCP socket that sets its own timeout before it comes here.
    """

    __slots__ = ("_acknowledged", "_leg", "_lifted")

    def __init__(self, leg: socket.socket) -> None:
        self._leg = leg
        self._acknowledged = -1
        self._lifted: int | None = None
        """The TCP_USER_TIMEOUT to put back, in milliseconds."""

    def look(self) -> Look:
        """See how the leg is, and see to its TCP_USER_TIMEOUT."""
        state = Standstill.of(self._leg)
        moved = state.acknowledged != self._acknowledged
        first, self._acknowledged = self._acknowledged < 0, state.acknowledged
        shut = state.waiting > 0 and state.unacknowledged == 0 and (first or not moved)
        if shut:
            if self._lifted is None:
                self._lifted = user_timeout(self._leg)
                set_user_timeout(self._leg, 0)
            elif state.unanswered_probes >= _DEAD_AFTER_PROBES:
                return Look.DEAD
        elif self._lifted is not None:
            set_user_timeout(self._leg, self._lifted)
            self._lifted = None
        return Look.WAITING if state.waiting or state.unacknowledged else Look.AT_REST


def user_timeout(leg: socket.socket) -> int:
    """TCP_USER_TIMEOUT of a leg in milliseconds; 0 is none."""
    try:
        return leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    except OSError:
        return 0


def set_user_timeout(leg: socket.socket, milliseconds: int) -> None:
    """Set TCP_USER_TIMEOUT; a leg that is gone is left alone."""
    with contextlib.suppress(OSError):
        leg.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
