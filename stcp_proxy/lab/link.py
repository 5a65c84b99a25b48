"""One connection of the stress client: send a message, receive it back, compare every byte, repeat.

A request must cost two system calls and little Python. So a link reads exactly the missing bytes of its message. The usual answer
arrives in one read, and one comparison of two `bytes` checks it. Where a server sends too many bytes, the next answer differs.
Links send a few random messages in turns, and each link starts with a different one. So a link detects an answer to a different
request or connection.
"""

from __future__ import annotations

import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from stcp_proxy.lab.loadgen import LabError

if TYPE_CHECKING:
    from stcp_proxy.lab.tally import Tally

READ: Final = select.EPOLLIN
BOTH: Final = select.EPOLLIN | select.EPOLLOUT
MAX_READ: Final = 256 << 10
LENGTH_LEN: Final = 4
_BUDGET: Final = 8 << 20
"""Bytes of all different messages together."""
_clock = time.perf_counter_ns


def messages(size: int, *, raw: bool, seed: int = 1) -> tuple[bytes, ...]:
    """Make different messages of `size` random bytes, each after its length (u32, big-endian) unless `raw`."""
    source, prefix = random.Random(seed), b"" if raw else size.to_bytes(LENGTH_LEN, "big")
    return tuple(prefix + source.randbytes(size) for _ in range(max(2, min(61, _BUDGET // size))))


def check_protocol(family: socket.AddressFamily, protocol: int) -> None:
    """Refuse a protocol number of which the kernel has no sockets.

    Raises:
        LabError: with what to load.
    """
    try:
        socket.socket(family, socket.SOCK_STREAM, protocol).close()
    except OSError as exc:
        what = f"this kernel has no sockets of protocol {protocol}: {exc.strerror}"
        raise LabError(what, remedy="load stcp.ko, and start 'stcp-proxy agent' (docs/KERNEL.md)") from None


class Owner(Protocol):
    """The part of a run that its links use."""

    protocol: int
    """The protocol number of the sockets; 0 is TCP."""

    tally: Tally
    epoll: select.epoll
    links: dict[int, Link]
    sending: bool
    """False at the end of the run: links send nothing new."""
    per_connection: int
    """The number of messages after which a link asks for a new connection; 0 means never."""

    def ended(self, link: Link, *, failed: bool) -> None:
        """Replace a closed link by a new connection.

        Args:
            link: the closed link.
            failed: whether it ended by a failure.
        """


class Link:
    """A plain connection.

    Args:
        owner: the run.
        queue: messages, sent in turns.
        first: the index of the first one.
    """

    __slots__ = (
        "_expected", "_got", "_handle", "_left", "_out", "_owner", "_queue", "_sent", "_turn", "busy", "first", "receive", "sock",
        "started",
    )  # fmt: skip

    def __init__(self, owner: Owner, queue: Sequence[bytes], first: int) -> None:
        self._owner = owner
        self._queue = queue
        self.first = first
        self._turn = first
        self._left = owner.per_connection or sys.maxsize
        self._expected = self._out = b""
        self._got = self._sent = 0
        self.started = _clock()
        self.busy = True
        """Whether the link waits for a step that can time out."""

    def connect(self, family: socket.AddressFamily, address: object) -> None:
        """Begin to connect.

        Raises:
            OSError: the connection is refused at once.
        """
        sock = socket.socket(family, socket.SOCK_STREAM, self._owner.protocol)
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.receive: Callable[[int], bytes] = sock.recv
        self._handle: Callable[[int], None] = self._on_connected
        try:
            sock.connect(address)  # type: ignore[arg-type]
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            raise
        self._owner.links[sock.fileno()] = self
        self._owner.epoll.register(sock.fileno(), BOTH)

    def on_event(self, mask: int) -> None:
        """Handle a ready socket."""
        self._handle(mask)

    def _on_connected(self, mask: int) -> None:
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail_to_connect(os.strerror(error))
        elif mask & select.EPOLLOUT:
            self._owner.epoll.modify(self.sock.fileno(), READ)
            self.established()

    def established(self) -> None:
        """Start to send requests: the connection is open."""
        self._owner.tally.connections += 1
        self._handle = self._on_ready
        self._next(_clock())

    def _next(self, at: int) -> None:
        """Send the next message, unless the run ends or the connection has sent all its messages."""
        if not self._owner.sending:
            self.rest()
            return
        if not self._left:
            self.finish()
            return
        self._left -= 1
        self._turn = turn = (self._turn + 1) % len(self._queue)
        self._expected = message = self._queue[turn]
        self._got = 0
        self.started = at
        self.put(self.encode(message))

    def encode(self, message: bytes) -> bytes:
        """The bytes to send for a message."""
        return message

    def put(self, out: bytes) -> None:
        """Send. After a short write wait until the socket is writable."""
        self._out = out
        try:
            self._sent = self.sock.send(out)
        except BlockingIOError:
            self._sent = 0
        except OSError as exc:
            self.fail(f"send: {exc.strerror}")
            return
        if self._sent < len(out):
            self._owner.epoll.modify(self.sock.fileno(), BOTH)

    def _on_ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._send_rest()
        if mask == select.EPOLLOUT:
            return
        try:
            data = self.receive(min(len(self._expected) - self._got or 1, MAX_READ))
        except BlockingIOError:
            return
        except OSError as exc:
            self.fail(f"receive: {exc.strerror}")
            return
        if not self._got and data == self._expected:
            self._answered()
        elif data and self._got < len(self._expected) and self._expected.startswith(data, self._got):
            self._got += len(data)
            if self._got == len(self._expected):
                self._answered()
        else:
            self.fail("the answer differs from the message" if data else "the connection ended before the whole answer")

    def _answered(self) -> None:
        now = _clock()
        self._owner.tally.latencies[(now - self.started) // 1000] += 1
        self._next(now)

    def _send_rest(self) -> None:
        try:
            self._sent += self.sock.send(memoryview(self._out)[self._sent :])
        except BlockingIOError:
            return
        except OSError as exc:
            self.fail(f"send: {exc.strerror}")
            return
        if self._sent == len(self._out):
            self._owner.epoll.modify(self.sock.fileno(), READ)

    # -- ends --------------------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Stop requests at the end of the run."""
        self.busy = False
        self._owner.epoll.unregister(self.sock.fileno())

    def leave(self) -> None:
        """End the connection in order, and close it."""
        self.close()

    def close(self) -> None:
        """Close the socket. No event follows."""
        self._owner.links.pop(self.sock.fileno(), None)
        self.sock.close()
        self.busy = False

    def finish(self) -> None:
        """End a connection that has carried all its messages."""
        self.close()
        self._owner.ended(self, failed=False)

    def fail(self, what: str) -> None:
        """Count a failed request."""
        self._owner.tally.operation_errors += 1
        self._end_badly(what)

    def _fail_to_connect(self, what: str) -> None:
        self._owner.tally.connection_errors += 1
        self._end_badly(f"connect: {what}")

    def time_out(self) -> None:
        """Count a step that took too long."""
        self._owner.tally.timeouts += 1
        self._end_badly("no answer in time")

    def _end_badly(self, what: str) -> None:
        self._owner.tally.note(what)
        self.close()
        self._owner.ended(self, failed=True)
