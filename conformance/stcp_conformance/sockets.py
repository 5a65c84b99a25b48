"""Sockets of the kit: every wait has a limit, and an end is either "EOF" or "RST"."""

from __future__ import annotations

import contextlib
import random
import socket
import struct

EOF, RST = "EOF", "RST"


class Deviation(Exception):
    """The implementation did something else than the law of the case says."""


class CutByReset(Deviation):
    """A TCP RST destroyed bytes on their way, as RST does."""


class Plain:
    """One stream of bytes: the application's end of a plain leg, or a wire leg before its handshake.

    Args:
        sock: a connected socket.
        seconds: limit of each wait.
        name: for messages.
    """

    def __init__(self, sock: socket.socket, seconds: float, name: str) -> None:
        self.sock, self.seconds, self.name = sock, seconds, name
        sock.settimeout(seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        """Send. An end that the other side has made is noticed by the next read."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def some(self) -> bytes | str:
        """The next bytes, EOF or RST."""
        try:
            return self.sock.recv(1 << 16) or EOF
        except ConnectionError:
            return RST
        except TimeoutError:
            raise Deviation(f"{self.name}: nothing came within {self.seconds:g} s, where bytes or an end had to come") from None

    def exactly(self, size: int) -> bytes:
        """Read `size` bytes. Raises Deviation when an end comes first."""
        data = bytearray()
        while len(data) < size:
            try:
                part = self.sock.recv(min(1 << 16, size - len(data)))
            except ConnectionError:
                raise CutByReset(f"{self.name}: RST after {len(data)} of {size} bytes") from None
            except TimeoutError:
                raise Deviation(f"{self.name}: {len(data)} of {size} bytes within {self.seconds:g} s") from None
            if not part:
                raise Deviation(f"{self.name}: EOF after {len(data)} of {size} bytes")
            data += part
        return bytes(data)

    def some_of(self, size: int) -> bytes | str:
        """Exactly `size` bytes, or the end when it comes before the first of them."""
        try:
            first = self.sock.recv(1)
        except ConnectionError:
            return RST
        except TimeoutError:
            raise Deviation(f"{self.name}: nothing came within {self.seconds:g} s, where bytes or an end had to come") from None
        return first + self.exactly(size - 1) if first else EOF

    def rest(self) -> tuple[bytes, str]:
        """Everything up to the end, and the end: EOF or RST."""
        data = b""
        try:
            while not isinstance(part := self.some(), str):
                data += part
        except Deviation as exc:
            raise Deviation(f"{exc}; before: {data[:40].hex() or 'no byte'}") from None
        return data, part

    def expect(self, data: bytes) -> None:
        """Read exactly these bytes."""
        if (found := self.exactly(len(data))) != data:
            raise Deviation(f"{self.name}: other bytes than were sent: {found[:40]!r}")

    def expect_end(self, *ends: str) -> str:
        """Read to the end, before which no byte may come."""
        data, end = self.rest()
        if data or end not in ends:
            raise Deviation(
                f"{self.name}: {len(data)} bytes {data[:40].hex()} and {end}, where only {' or '.join(ends)} may come"
            )
        return end

    def finish(self) -> None:
        """Shut down the sending side."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a TCP RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Server:
    """A listening socket on a port of its own, at 127.0.0.1."""

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds, self.name = seconds, name
        self.port = free_port()  # no outgoing connection takes it while the server is closed for a moment
        self.open()

    def open(self) -> None:
        """Listen, at the same port as before."""
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(("127.0.0.1", self.port))
        self._sock.listen(64)

    def accept(self, seconds: float | None = None) -> Plain:
        """The next connection. Raises Deviation when none comes."""
        self._sock.settimeout(self.seconds if seconds is None else seconds)
        try:
            return Plain(self._sock.accept()[0], self.seconds, self.name)
        except (TimeoutError, BlockingIOError):
            raise Deviation(f"{self.name}: no connection came") from None

    def drain(self) -> int:
        """Close the connections that nobody took. Returns their number."""
        count = 0
        with contextlib.suppress(Deviation):
            while True:
                self.accept(0).close()
                count += 1
        return count

    def fileno(self) -> int:
        """For select."""
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


def dial(port: int, seconds: float, name: str) -> Plain:
    """Connect to a port of 127.0.0.1.

    Raises:
        Deviation: nothing listens there.
    """
    try:
        return Plain(socket.create_connection(("127.0.0.1", port), seconds), seconds, name)
    except OSError as exc:
        raise Deviation(f"{name}: {exc}") from None


def free_port() -> int:
    """A port on which nothing listens now, below those that the system gives to outgoing connections."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as sock:
            port = random.randrange(20_000, 32_000)
            sock.bind(("127.0.0.1", port))
            return port
