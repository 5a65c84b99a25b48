"""A Trio stream over a plain non-blocking socket that is going to be handed over to an engine."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

import trio

from stcp_proxy.net.first_steps import in_task, soon_readable
from stcp_proxy.net.shortage import shortage

_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class LegStream(trio.abc.HalfCloseableStream):
    """One leg of a connection during the opening.

    `trio.SocketStream` sets TCP_NOTSENT_LOWAT, which the relay would inherit, and makes a checkpoint in every call. This stream
    tries first and waits only when the call would block; after a send it waits at once, because the answer cannot be there yet.
    Only this wait may do without a task, once for each send. So bytes that trickle in give a session a task, which can end.

    Args:
        sock: connected, non-blocking stream socket; owned by the stream.

    Attributes:
        is_cut: whether the last bytes to send went in part only.
    """

    __slots__ = ("_has_asked", "_sock", "is_cut")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._has_asked = False
        self.is_cut = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Up to `max_bytes` (default 32 KiB); empty at the end.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            OverLimit: this machine lacks memory.
        """
        size = max_bytes or 32768
        if self._has_asked:
            self._has_asked = False
            if not await soon_readable(self._sock):
                await self._wait_readable()
        while True:
            try:
                return self._sock.recv(size)
            except BlockingIOError:
                await self._wait_readable()
            except OSError as exc:
                raise _broken(exc) from exc

    async def _wait_readable(self) -> None:
        await in_task()
        await trio.lowlevel.wait_readable(self._sock.fileno())

    def receive_nowait(self, max_bytes: int) -> bytes:
        """What is there already, or nothing.

        Raises:
            trio.BrokenResourceError: the connection is broken. The system tells that once, and plain EOF from then on: to pass
                over it here would make a clean end of a reset.
        """
        try:
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            return b""
        except OSError as exc:
            raise _broken(exc) from exc

    @property
    def has_news(self) -> bool:
        """Whether bytes, the end or an error wait at the socket. Nothing is read."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def send_nowait(self, data: bytes) -> int:
        """Send what the socket takes at once. Returns the number of bytes that it took.

        Raises:
            trio.BrokenResourceError: the connection is broken, and it took nothing.
            OverLimit: this machine lacks memory.
        """
        self._has_asked = True
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _broken(exc) from exc
        self.is_cut = sent < len(data)
        return sent

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. When cancelled, an unknown part of it has gone.

        Raises:
            trio.BrokenResourceError: the connection is broken.
            OverLimit: this machine lacks memory.
        """
        left = data
        while left:
            try:
                sent = self._sock.send(left)
                if sent == len(left):
                    break
                left, self.is_cut = memoryview(left)[sent:], True
            except BlockingIOError:
                await self.wait_send_all_might_not_block()
            except OSError as exc:
                raise _broken(exc) from exc
        self._has_asked, self.is_cut = True, False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes bytes."""
        await in_task()
        await trio.lowlevel.wait_writable(self._sock.fileno())

    async def send_eof(self) -> None:
        """End the sending direction; a connection that is already gone is left alone."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Close without ceremony."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close now. No task may be waiting on this stream."""
        self._sock.close()

    def reset(self) -> None:
        """Close so that the other end sees a TCP RST."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._sock.close()

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for the handover."""
        return self._sock


def _broken(exc: OSError) -> Exception:
    """The error for a failed call: of this machine where it lacks memory, else of the connection."""
    return shortage(exc.errno) or trio.BrokenResourceError(str(exc))
