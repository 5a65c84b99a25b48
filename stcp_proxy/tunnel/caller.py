"""A caller of a listen tunnel: an accepted connection that has no session yet, and what it has said.

The bytes stay in the kernel; this module looks at them (MSG_PEEK).
"""

from __future__ import annotations

import enum
import fcntl
import socket
import struct
import termios
from collections.abc import Collection
from typing import Any, Final

import trio

from stcp_proxy.errors import ConnectCheck, HandshakeClosed, MessageReplayed, StcpError
from stcp_proxy.net.source import Source, source_of
from stcp_proxy.protocol.prologue import first_message_size
from stcp_proxy.protocol.wire import KEY_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN, Suite
from stcp_proxy.tunnel.replays import Replays

_PEEK: Final = 64
"""Bytes that are looked at: enough for the prologue, the length field, the ephemeral key, and the name of another protocol."""
_EPHEMERAL: Final = slice(PROLOGUE_LEN + MESSAGE_LENGTH_LEN, PROLOGUE_LEN + MESSAGE_LENGTH_LEN + KEY_LEN)
"""The place of the ephemeral key: `e` is the first token of every pattern."""
_COUNT: Final = struct.Struct("i")


class Stage(enum.IntEnum):
    """How much a caller has said; a lower stage loses its place first."""

    SILENT = 0
    SPEAKING = 1
    SUSPECT = 2
    COMPLETE = 3


class Caller:
    """An accepted connection in the lobby.

    Attributes:
        sock: the socket; owned by the lobby until its session begins.
        address: the socket address of the other end, as `accept` gave it.
        source: its source.
        since: when it was accepted, on Trio's clock.
        stage: how much it has said.
        ephemeral: the ephemeral key of its first message, 32 bytes; fewer before these have arrived.
        is_watched: whether it is in the lobby's epoll set.
    """

    __slots__ = ("address", "ephemeral", "is_watched", "since", "sock", "source", "stage")

    def __init__(self, sock: socket.socket, address: Any) -> None:
        self.sock = sock
        self.address = address
        self.source: Source = source_of(address)
        self.since = trio.current_time()
        self.stage = Stage.SILENT
        self.ephemeral = b""
        self.is_watched = False

    def said(self, suites: Collection[Suite], replays: Replays, *, ended: bool) -> Stage | StcpError:
        """Look at what it has said.

        Args:
            suites: suites that the tunnel accepts.
            replays: genuine first messages of late.
            ended: whether it says no more.

        Returns:
            Its stage, which is never `SUSPECT`; or why it is refused.
        """
        try:
            head = self.sock.recv(_PEEK, socket.MSG_PEEK)
            size = first_message_size(head, suites) if head else None
        except BlockingIOError:
            return self.stage
        except OSError:
            head, size = b"", None
        except StcpError as exc:
            return exc
        self.ephemeral = head[_EPHEMERAL]
        if len(self.ephemeral) == KEY_LEN and replays.has(self.ephemeral):
            return MessageReplayed("the first message has been used before")
        if not head:
            return _closed(self.stage)
        if size is not None and _waiting_bytes(self.sock) >= size:
            return Stage.COMPLETE
        return _closed(Stage.SPEAKING) if ended else max(self.stage, Stage.SPEAKING)


def _closed(stage: Stage) -> StcpError:
    """The failure of a caller that closed its connection."""
    if stage is Stage.SILENT:
        return ConnectCheck("the connection was closed before its first byte")
    return HandshakeClosed("the peer closed the connection during the handshake")


def _waiting_bytes(sock: socket.socket) -> int:
    """The number of bytes that have arrived and were not read (FIONREAD)."""
    return int(_COUNT.unpack(fcntl.ioctl(sock, termios.FIONREAD, bytes(_COUNT.size)))[0])
