"""Tell a reader that pauses from a path that is lost.

Linux applies TCP_USER_TIMEOUT to a zero window too: a peer that answers every window probe and only does not read loses its
connection (tcp_probe_timer). An application that pauses would lose its connection for it, even where all waiting bytes fitted
into the send buffer. So the owner of a leg looks at it now and then:

- Nothing waits, or segments are under way, or the peer acknowledged bytes since the last look, or its window is open: the
  kernel's TCP_USER_TIMEOUT stays and decides. Bytes that wait behind an open window mean that this host could not send: the link
  is down, or a local firewall drops packets.
- Bytes wait behind a closed window: TCP_USER_TIMEOUT is lifted. The peer is dead once it has left several window probes
  unanswered for as long as TCP_USER_TIMEOUT said. A count of probes alone is no proof: four of them fit into three seconds.

TCP_INFO tells all of this (struct tcp_info, linux/tcp.h).
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
from dataclasses import dataclass
from typing import Final

_TCP_INFO: Final = struct.Struct("=3xB12xI4xI92xQ16xI80xI")
"""Offsets: tcpi_probes 3, tcpi_snd_mss 16, tcpi_unacked 24, tcpi_bytes_acked 120, tcpi_notsent_bytes 144, tcpi_snd_wnd 228."""
_PROBES: Final = 4
"""Window probes without an answer below which a peer is never dead: single probes get lost."""
_DEFAULT_TIMEOUT_MS: Final = 60_000


class Look(enum.Enum):
    """Result of a look at a leg."""

    AT_REST = enum.auto()
    """Nothing waits: no further look before something is sent."""
    WAITING = enum.auto()
    """Bytes wait, or are under way."""
    DEAD = enum.auto()
    """The peer does not answer any more."""


@dataclass(frozen=True, slots=True)
class SendState:
    """The sending half of a TCP socket.

    Attributes:
        unanswered_probes: window probes that the peer left without an answer.
        segment: bytes of a full segment.
        unacknowledged: segments under way.
        acknowledged: bytes that the peer has taken since the beginning.
        waiting: bytes not sent yet.
        window: bytes that the peer is willing to take.
    """

    unanswered_probes: int
    segment: int
    unacknowledged: int
    acknowledged: int
    waiting: int
    window: int

    @classmethod
    def of(cls, leg: socket.socket) -> SendState:
        """Ask a TCP socket. A unix socket, and a leg that is gone, have nothing under way."""
        try:
            raw = leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:
            return cls(0, 0, 0, 0, 0, 0)
        return cls(
            *_TCP_INFO.unpack(raw.ljust(_TCP_INFO.size, b"\0"))
        )  # before Linux 5.4 without the window: it counts as closed

    @property
    def window_closed(self) -> bool:
        """Whether the peer's window keeps waiting bytes back: Linux sends no part of a segment into a small window."""
        return self.waiting > 0 and self.unacknowledged == 0 and (self.window < self.segment or self.window == 0)


class LegWatch:
    """Looks at one TCP leg, and lifts and restores its TCP_USER_TIMEOUT.

    Args:
        leg: a connected TCP socket whose TCP_USER_TIMEOUT is set.
    """

    __slots__ = ("_acknowledged", "_leg", "_lifted", "_unanswered_since")

    def __init__(self, leg: socket.socket) -> None:
        self._leg = leg
        self._acknowledged = -1
        self._lifted: int | None = None
        """The TCP_USER_TIMEOUT to restore, in milliseconds."""
        self._unanswered_since: float | None = None

    def look(self, now: float) -> Look:
        """Look at the leg at the monotonic time `now`, in seconds."""
        state = SendState.of(self._leg)
        moved = self._acknowledged >= 0 and state.acknowledged != self._acknowledged
        self._acknowledged = state.acknowledged
        if not state.window_closed or moved:
            self.restore()
        elif self._is_dead(state, now):
            return Look.DEAD
        return Look.WAITING if state.waiting or state.unacknowledged else Look.AT_REST

    def _is_dead(self, state: SendState, now: float) -> bool:
        """Whether a peer with a closed window is gone."""
        if self._lifted is None:
            self._lifted = user_timeout(self._leg)
            set_user_timeout(self._leg, 0)
        if not state.unanswered_probes:
            self._unanswered_since = None
            return False
        if self._unanswered_since is None:
            self._unanswered_since = now
        silent = 1000 * (now - self._unanswered_since)
        return state.unanswered_probes >= _PROBES and silent >= (self._lifted or _DEFAULT_TIMEOUT_MS)

    def restore(self) -> None:
        """Restore the TCP_USER_TIMEOUT that a look has lifted."""
        self._unanswered_since = None
        if self._lifted is not None:
            set_user_timeout(self._leg, self._lifted)
            self._lifted = None


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
