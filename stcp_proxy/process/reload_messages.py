"""The messages that a parent and its workers exchange for a reload, and the listening sockets that travel with them.

Each worker has a pair of connected sockets with the parent, made before the fork. A message is one record (SOCK_SEQPACKET) of
JSON; descriptors travel with it (SCM_RIGHTS). No message holds a secret: a plan goes through a socket of its own.


    parent   plan      force                      this is the new plan, to be read from the socket
             listeners names, last                these are the new listening sockets, by tunnel; "" is the admin address
             commit    asked                      make the change
             refused   why, remedy, asked         abandon the change
             give                                 send your listening sockets; see ``takeover_server``
             replaced  taken                      another process serves these, counted from 0: drain
    worker   yes                                  answer to plan and listeners: prepared; to commit: done
             no        why, remedy                answer to plan and listeners: refused
             sockets   handed, last               answer to give: these are my listening sockets
             ask       force                      this worker was asked for a reload

Every message but `ask` names its round. Messages of an earlier round are ignored.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net import fd_records
from stcp_proxy.net.fd_records import MAX_SOCKETS

__all__ = ["MAX_SOCKETS", "Message", "pair", "receive", "send"]

ADMIN: Final = ""
"""The name of the admin address among listening sockets of tunnels."""
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


def listeners_in_parts(listeners: Mapping[str, Sequence[socket.socket]]) -> Iterator[tuple[list[socket.socket], dict[str, Any]]]:
    """The sockets and the fields of each `listeners` message; there is at least one."""
    names = [name for name, sockets in listeners.items() for _ in sockets]
    every = [sock for sockets in listeners.values() for sock in sockets]
    for first in range(0, max(len(every), 1), MAX_SOCKETS):
        end = first + MAX_SOCKETS
        yield every[first:end], {"names": names[first:end], "last": end >= len(every)}


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
    fd_records.send(sock, json.dumps({"verb": verb, "round": round_, **rest}).encode(), sockets)


def receive(sock: socket.socket) -> Message | None:
    """The next message; None when the other end is closed.

    Raises:
        BlockingIOError: no message has arrived.
    """
    found = fd_records.receive(sock)
    if not found.data:
        return None
    message = json.loads(found.data)
    return Message(message.pop("verb"), message.pop("round"), message, found.sockets, found.complete)


def silent(number: int, seconds: float) -> ConfigError:
    """The failure of a reload whose worker does not answer.

    Args:
        number: the worker.
        seconds: the time that it had.
    """
    what = f"worker {number} has not answered in {seconds:g} seconds"
    return ConfigError(what, remedy="try again; restart the proxy if it stays so")


def is_ready(sock: socket.socket, event: int, seconds: float) -> bool:
    """Wait for a socket.

    Args:
        sock: the socket.
        event: `select.POLLIN` or `select.POLLOUT`.
        seconds: the longest wait.
    """
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(seconds * 1000))
