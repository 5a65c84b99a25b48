"""What the kernel says of a TCP leg that takes no bytes, from TCP_INFO (struct tcp_info, linux/tcp.h)."""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Final

_TCP_INFO: Final = struct.Struct("=3xB4x16xI")
"""tcpi_probes is the fourth byte; tcpi_unacked stands behind tcpi_rto, tcpi_ato, tcpi_snd_mss and tcpi_rcv_mss."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """Why a leg stands still.

    Attributes:
        unanswered_probes: window probes that the other end has left without an answer.
        unacknowledged: segments under way.
    """

    unanswered_probes: int
    unacknowledged: int

    @classmethod
    def of(cls, leg: socket.socket) -> Standstill:
        """Ask about a TCP socket. One that cannot tell has nothing under way."""
        try:
            return cls(*_TCP_INFO.unpack(leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)))
        except OSError:
            return cls(0, 0)


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
