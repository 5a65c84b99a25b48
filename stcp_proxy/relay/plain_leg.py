"""The plain leg of a process that dies: its other end must see a reset, never a clean end.

The kernel closes the sockets of a dead process. A TCP socket with SO_LINGER of zero seconds is then closed by RST instead of FIN,
so that an application does not take half an answer for a whole one. Nothing but a complete connection may end by FIN.

A unix socket has no reset: its other end reads EOF.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_RST: Final = struct.pack("ii", 1, 0)
_FIN: Final = struct.pack("ii", 0, 0)


def reset_on_close(leg: socket.socket) -> None:
    """From now on any close of `leg`, the kernel's too, sends a TCP RST."""
    _set_linger(leg, _RST)


def finish_on_close(leg: socket.socket) -> None:
    """From now on a close of `leg` sends what it still holds, then FIN."""
    _set_linger(leg, _FIN)


def _set_linger(leg: socket.socket, value: bytes) -> None:
    try:  # twice as fast as `suppress`, three times a connection
        leg.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
    except OSError:
        return  # the leg is gone
