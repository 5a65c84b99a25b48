"""The socket options of both legs.

A peer that is gone is noticed within 60 s, whether it owes us an acknowledgement or is silent:

- Bytes under way and not acknowledged: TCP_USER_TIMEOUT.
- Nothing under way: keepalive. Linux lets TCP_USER_TIMEOUT decide about keepalive too (tcp_keepalive_timer ends the connection
  once it has been silent for that long *and one* probe is unanswered; the probe count is ignored). So the probes must all fit
  in front of it, or one lost probe ends a healthy connection: 15 s of silence, then a probe every 5 s, nine in all, 60 s.

A connection survives a path that is lost for 29 s. For this, 60 s are needed: Linux doubles the time between two retransmissions,
so the first one after an interruption of 29 s may be sent 58 s after its begin. A shorter TCP_USER_TIMEOUT ends the connection
although the path is back.

Bytes that a sender marks as urgent (MSG_OOB) stay in the stream: SO_OOBINLINE. Without it the kernel takes the last of them
out, and a relay would lose it.

A leg whose other end is on this host, as a sidecar's plain leg is, has no network to be careful of. The host's congestion control
may pace packets (bbr): on loopback that only costs processor time for timers. So such a leg uses reno, which every Linux has and
allows to all users.

An accepted socket inherits the options of its listener, so the options of accepted legs are set once, on the listener.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final

KEEPALIVE_IDLE: Final = 15
KEEPALIVE_INTERVAL: Final = 5
KEEPALIVE_COUNT: Final = 9
USER_TIMEOUT_MS: Final = 60_000

_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
)


_ON_LOOPBACK: Final = b"reno"


def tune_listener(sock: socket.socket) -> None:
    """Set the options of every leg that a listening socket is going to accept, except those that depend on the client."""
    if sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):
            _set_options(sock)


def tune_accepted(sock: socket.socket, peer: object) -> None:
    """Set the remaining options of a leg that a tuned listener accepted.

    Args:
        sock: just accepted.
        peer: the address that `accept` gave for its other end.
    """
    if isinstance(peer, tuple):
        try:
            _spare_this_host(sock, peer[0])
        except OSError:
            return  # it is already dead: its reader sees it


def tune_leg(sock: socket.socket) -> None:
    """Set the options of a connected leg; a unix socket needs none, and a socket that is already dead is left to its reader."""
    try:
        peer = sock.getpeername()
        if isinstance(peer, tuple):
            _set_options(sock)
            _spare_this_host(sock, peer[0])
    except OSError:
        return


def _set_options(sock: socket.socket) -> None:
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)


def _spare_this_host(sock: socket.socket, peer: str) -> None:
    if _is_loopback(peer) or (own := sock.getsockname()[0]) == peer or _is_loopback(own):  # that: a rule has redirected it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _ON_LOOPBACK)


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
