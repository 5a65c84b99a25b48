"""Records with descriptors between processes of this machine: SOCK_SEQPACKET unix sockets and SCM_RIGHTS."""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_SOCKETS: Final = 200
"""Sockets in one record; the kernel's limit is 253."""
MAX_SIZE: Final = 128 * 1024
"""Bytes of one record."""
_FD: Final = array.array("i").itemsize


@dataclass(slots=True)
class Record:
    """A received record.

    Attributes:
        data: its bytes; empty when the other end is closed.
        sockets: the sockets that travelled with it, non-blocking.
        complete: whether all its bytes and sockets arrived: a process without free descriptors loses sockets.
    """

    data: bytes = b""
    sockets: list[socket.socket] = field(default_factory=list)
    complete: bool = True


def send(sock: socket.socket, data: bytes, sockets: Sequence[socket.socket] = ()) -> None:
    """Send a record, whole or not at all.

    Args:
        sock: a connected SOCK_SEQPACKET socket.
        data: at most `MAX_SIZE` bytes.
        sockets: at most `MAX_SOCKETS`; they stay open here.

    Raises:
        BlockingIOError: the other end has not read earlier records.
        OSError: the other end is closed.
    """
    if sockets:
        socket.send_fds(sock, [data], [each.fileno() for each in sockets])
    else:
        sock.send(data)


def receive(sock: socket.socket) -> Record:
    """The next record; one without data when the other end is closed.

    Raises:
        BlockingIOError: no record has arrived.
    """
    try:
        data, parts, flags, _ = _receive(sock)
    except ConnectionResetError:
        try:  # the kernel reports a reset first, and then the records that came before it
            data, parts, flags, _ = _receive(sock)
        except ConnectionError:
            return Record()
    except ConnectionError:
        return Record()
    fds = array.array("i")
    for level, kind, part in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(part[: len(part) - len(part) % _FD])
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for each in sockets:
        each.setblocking(False)
    return Record(data, sockets, not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC))


def _receive(sock: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
    # Not socket.recv_fds, which does not pass the flag: programs started from here must not inherit the descriptors.
    return sock.recvmsg(MAX_SIZE, socket.CMSG_SPACE(MAX_SOCKETS * _FD), socket.MSG_CMSG_CLOEXEC)
