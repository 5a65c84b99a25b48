"""What a parent and its workers say to each other about a reload, and the listening sockets that go with it.

For each worker there is a pair of connected sockets, made before the fork and known to nobody else. A message is one record
(SOCK_SEQPACKET) of JSON; descriptors travel with it (SCM_RIGHTS). No secret is in one: a plan goes through a socket of its own.

    parent   plan                                 this is the new plan, to be read from the socket
             doors     names, last                these are the new listening sockets
             commit    asked                      make the change
             refused   why, remedy, asked         give it up
    worker   yes                                  to plan and doors: so far, so good; to commit: it is made
             no        why, remedy                to plan and doors
             ask                                  somebody wants a reload

Every message but `ask` names its round: what belongs to an earlier one is of no interest any more.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MOST: Final = 200
"""Descriptors that go with one message; the kernel's limit is 253."""
_FD: Final = array.array("i").itemsize
_SIZE: Final = 128 * 1024
_WORDS: Final = 16_000
"""Characters of a reason: the mistakes of a file can be many."""


@dataclass(slots=True)
class Heard:
    """A message that has come.

    Attributes:
        verb: what it says.
        round: which reload it is about; 0 for none.
        rest: the other parts.
        sockets: what came along.
        whole: whether all that was sent along has come: a process that is out of descriptors loses some.
    """

    verb: str
    round: int = 0
    rest: dict[str, Any] = field(default_factory=dict)
    sockets: list[socket.socket] = field(default_factory=list)
    whole: bool = True


def pair() -> tuple[socket.socket, socket.socket]:
    """Connected sockets: the parent's end, and the worker's."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def say(sock: socket.socket, verb: str, round_: int = 0, *, sockets: Sequence[socket.socket] = (), **rest: Any) -> None:
    """Send a message, whole or not at all.

    Args:
        sock: an end of a pair.
        verb, round_, rest: see above.
        sockets: at most `MOST`; the sender's own stay open.

    Raises:
        BlockingIOError: the other end has not read what it was sent before.
        OSError: it is gone.
    """
    if rest.get("why"):
        rest["why"] = rest["why"][:_WORDS]
    data = json.dumps({"verb": verb, "round": round_, **rest}).encode()
    if sockets:
        socket.send_fds(sock, [data], [each.fileno() for each in sockets])
    else:
        sock.send(data)


def hear(sock: socket.socket) -> Heard | None:
    """The next message; None when the other end is gone.

    Raises:
        BlockingIOError: none is there yet.
    """
    try:
        # Not socket.recv_fds, which forgets the flag: no program started from here is to have the descriptors.
        data, parts, flags, _ = sock.recvmsg(_SIZE, socket.CMSG_SPACE(MOST * _FD), socket.MSG_CMSG_CLOEXEC)
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
    return Heard(message.pop("verb"), message.pop("round"), message, sockets, not flags & socket.MSG_CTRUNC)
