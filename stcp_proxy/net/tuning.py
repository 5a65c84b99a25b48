"""The socket options of both legs.

A peer that is gone is noticed within 30 s, whether it owes us an acknowledgement or is silent:

- Bytes under way and not acknowledged: TCP_USER_TIMEOUT.
- Nothing under way: keepalive. Linux lets TCP_USER_TIMEOUT decide about keepalive too (tcp_keepalive_timer ends the connection
  once it has been silent for that long *and one* probe is unanswered; the probe count is ignored). So the probes must all fit
  in front of it, or one lost probe ends a healthy connection: 15 s of silence, then a probe every 5 s, three in all, 30 s.

A leg whose other end is on this host, as a sidecar's plain leg is, has no network to be careful of. A host's congestion control
may be one that paces (bbr): on loopback that is processor time for timers and nothing else, so such a leg takes reno, which every
Linux has and allows everybody.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

KEEPALIVE_IDLE: Final = 15
KEEPALIVE_INTERVAL: Final = 5
KEEPALIVE_COUNT: Final = 3
USER_TIMEOUT_MS: Final = 30_000

_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
)


_ON_LOOPBACK: Final = b"reno"


def tune_leg(sock: socket.socket) -> None:
    """Set the options of a connected leg; a unix socket needs none, and a socket that is already dead is left to its reader."""
    if sock.family == socket.AF_UNIX:
        return
    with contextlib.suppress(OSError):
        for level, option, value in _OPTIONS:
            sock.setsockopt(level, option, value)
        if _same_host(sock):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _ON_LOOPBACK)


def _same_host(sock: socket.socket) -> bool:
    """Whether one end is loopback, or both are the same address. This end alone is where a rule redirected the connection."""
    ends: tuple[str, str] = (sock.getpeername()[0], sock.getsockname()[0])
    return ends[0] == ends[1] or any(end.startswith(("127.", "::ffff:127.")) or end == "::1" for end in ends)
