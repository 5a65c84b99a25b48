"""The messages that a parent and its workers exchange for a reload, and the listening sockets that travel with them.

Each worker has a pair of connected sockets with the parent, made before the fork. A message is one record (SOCK_SEQPACKET) of
JSON; descriptors travel with it (SCM_RIGHTS). No message holds a secret: a plan goes through a socket of its own.


    parent   plan      force                      this is the new plan, to be read from the socket
             listeners names, last                these are the new listening sockets
             commit    asked                      make the change
             refused   why, remedy, asked         abandon the change
    worker   yes                                  answer to plan and listeners: prepared; to commit: done
             no        why, remedy                answer to plan and listeners: refused
             ask       force                      this worker was asked for a reload

Every message but `ask` names its round. Messages of an earlier round are ignored.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MAX_SOCKETS: Final = 200
"""Descriptors in one message; the kernel's limit is 253."""
_FD: Final = array.array("i").itemsize
_SIZE: Final = 128 * 1024
_MAX_REASON: Final = 16_000
"""Characters of a reason: a file can have many mistakes."""


@dataclass(slots=True)
class Message:
    """A received message.

    Attributes:
        verb: its kind.
        round: the number of the reload; 0 for none.
        rest: the other fields.
        sockets: the sockets that travelled with it.
        complete: whether all its sockets arrived: a process without free descriptors loses some.
    """

    verb: str
    round: int = 0
    rest: dict[str, Any] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)
    complete: bool = True


def pair() -> tuple[socket.socket, socket.socket]:
    """Connected sockets: the parent's end, and the worker's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def send(sock: socket.socket, verb: str, round_: int = 0, *, sockets: Sequence[socket.socket] = (), **rest: Any) -> None:
    """Send a message, whole or not at all.

    Args:
        sock: an end of a pair.
        verb, round_, rest: see the table above.
        sockets: at most `MAX_SOCKETS`; they stay open here.

    Raises:
        BlockingIOError: the other end has not read earlier messages.
        OSError: the other end is closed.
    """
    if rest.get("why"):
        rest["why"] = rest["why"][:_MAX_REASON]
    data = json.dumps({"verb": verb, "round": round_, **rest}).encode()
    if sockets:
        socket.send_fds(sock, [data], [each.fileno() for each in sockets])
    else:
        sock.send(data)


def receive(sock: socket.socket) -> Message | None:
    """The next message; None when the other end is closed.

    Raises:
        BlockingIOError: no message has arrived.
    """
    try:
        # Not socket.recv_fds, which does not pass the flag: programs started from here must not inherit the descriptors.
        data, parts, flags, _ = sock.recvmsg(_SIZE, socket.CMSG_SPACE(MAX_SOCKETS * _FD), socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    fds = array.array("i")
    for level, kind, part in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(part[: len(part) - len(part) % _FD])
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for each in sockets:
        each.setblocking(False)
    if not data:
        return None
    message = json.loads(data)
    return Message(message.pop("verb"), message.pop("round"), message, sockets, not flags & socket.MSG_CTRUNC)
