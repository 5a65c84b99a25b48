"""The framed echo server. Each message is a 4-byte big-endian length and that many bytes; it is sent back whole.

It works as the engine does: one epoll set for each thread, one read into a buffer that all connections share, one write of all
complete messages in it. A connection keeps bytes only for a partial message or after a short write. After a short write, the
server stops reading from the connection until the remainder is written.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from typing import Final

import structlog

from stcp_proxy.lab.link import LENGTH_LEN, check_protocol
from stcp_proxy.lab.loadgen import LabError

MAX_MESSAGE: Final = 32 << 20
"""The largest message, in bytes."""
SCRATCH: Final = 256 << 10
"""Bytes of one read."""
_EVENTS: Final = 512
_BACKLOG: Final = 4096
_log = structlog.get_logger("stcp_proxy.echo")


class BadLengthError(Exception):
    """The message is longer than the server allows."""


def whole(data: bytes | bytearray | memoryview) -> int:
    """The number of bytes at the start that are complete messages.

    Raises:
        BadLengthError: a message is longer than 32 MiB; raised as soon as its length has arrived.
    """
    at, size = 0, len(data)
    while size - at >= LENGTH_LEN:
        length = int.from_bytes(data[at : at + LENGTH_LEN], "big")
        if length > MAX_MESSAGE:
            raise BadLengthError(f"a length of {length} bytes, more than {MAX_MESSAGE}")
        if size - at < LENGTH_LEN + length:
            break
        at += LENGTH_LEN + length
    return at


class _Connection:
    """The bytes that a connection keeps: the beginning of a message, and the remainder of a short write."""

    __slots__ = ("address", "out", "partial", "sock", "wanted")

    def __init__(self, sock: socket.socket, address: object) -> None:
        self.sock = sock
        self.address = address
        self.partial = bytearray()
        self.wanted = 0
        """The length of the partial message, once it is known."""
        self.out = memoryview(b"")


class _Loop:
    """The connections of one thread."""

    def __init__(self, listener: socket.socket, stop: int) -> None:
        self._listener = listener
        self._stop = stop
        self._scratch = memoryview(bytearray(SCRATCH))
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        with select.epoll() as self._epoll:
            self._epoll.register(self._stop, select.EPOLLIN)
            self._epoll.register(self._listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
            while self._turn():
                pass
            for connection in self._connections.values():
                connection.sock.close()

    def _turn(self) -> bool:
        for fd, mask in self._epoll.poll(None, _EVENTS):
            connection = self._connections.get(fd)
            if connection is not None:
                self._serve(connection, mask)
            elif fd == self._stop:
                return False
            elif fd == self._listener.fileno():
                self._accept()
        return True

    def _accept(self) -> None:
        try:
            sock, address = self._listener.accept()
        except OSError as exc:
            if not isinstance(exc, BlockingIOError):
                _log.warning("accept failed", error=exc.strerror)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[sock.fileno()] = _Connection(sock, address)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _serve(self, connection: _Connection, mask: int) -> None:
        try:
            if connection.out:
                self._write(connection, connection.out)
            elif mask & ~select.EPOLLOUT:
                self._read(connection)
        except BlockingIOError:
            return
        except BadLengthError as exc:
            _log.warning("bad length: connection closed", client=connection.address, reason=str(exc))
            self._drop(connection)
        except OSError:
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        size = connection.sock.recv_into(self._scratch)
        if not size:
            self._drop(connection)
            return
        data = self._scratch[:size]
        if not connection.partial:
            end = whole(data)
            self._begin_partial(connection, data[end:])
            if end:
                self._write(connection, data[:end])
            return
        connection.partial += data
        if len(connection.partial) >= connection.wanted:
            gathered = connection.partial
            connection.partial = bytearray()
            end = whole(gathered)
            self._begin_partial(connection, memoryview(gathered)[end:])
            if end:
                self._write(connection, memoryview(gathered)[:end])

    def _begin_partial(self, connection: _Connection, rest: memoryview) -> None:
        if rest:
            connection.partial = bytearray(rest)
            known = len(rest) >= LENGTH_LEN
            connection.wanted = LENGTH_LEN + int.from_bytes(rest[:LENGTH_LEN], "big") if known else LENGTH_LEN

    def _write(self, connection: _Connection, data: memoryview) -> None:
        """Write. After a short write, keep the remainder and stop reading until it is written."""
        waiting = bool(connection.out)
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        rest = data[sent:]
        if rest and not waiting:
            connection.out = memoryview(bytes(rest))
            self._epoll.modify(connection.sock.fileno(), select.EPOLLOUT)
        elif waiting:
            connection.out = rest
            if not rest:
                self._epoll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.sock.fileno()]
        connection.sock.close()


def _listen(family: socket.AddressFamily, protocol: int, address: tuple[str, int]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class EchoServer:
    """A running echo server. A context manager: leaving it closes everything.

    Args:
        host: address to listen on.
        port: 0 takes a free port; the attribute `port` has its number.
        threads: the number of loops that share the listener.
        protocol: the protocol number of the sockets; 0 is TCP.

    Raises:
        LabError: the server cannot listen on the address, or the kernel has no such sockets.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 6667, *, threads: int = 1, protocol: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        check_protocol(family, protocol)
        try:
            self._listener = _listen(family, protocol, (host, port))
        except OSError as exc:
            raise LabError(f"cannot listen on {host}:{port}: {exc.strerror}", remedy="choose another --host or --port") from exc
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads = [
            threading.Thread(target=_Loop(self._listener, self._stop).run, name=f"echo-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> EchoServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def wait_for_signal(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()

    def close(self) -> None:
        """Close all connections and the listener."""
        os.eventfd_write(self._stop, 1)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        os.close(self._stop)
