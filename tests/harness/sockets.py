"""Blocking sockets with deadlines, and small servers as targets of a tunnel."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT = 60.0
"""Seconds. Only a test that fails waits for so long; a busy machine may need most of it."""
_RST_ON_CLOSE = struct.pack("ii", 1, 0)


def connect(address: tuple[str, int] | str) -> socket.socket:
    """A connected socket: TCP for (host, port), unix for a path."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        sock.connect(address)
        return sock
    return socket.create_connection(address, timeout=TIMEOUT)


def read_all(sock: socket.socket) -> bytes:
    """Read up to EOF. Raises ConnectionResetError after a reset, and TimeoutError when no bytes arrive."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes, or fewer when EOF comes first."""
    data = bytearray()
    while len(data) < size and (part := sock.recv(min(size - len(data), 1 << 16))):
        data += part
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close so that the other end sees a TCP RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    sock.close()


def end_of(sock: socket.socket) -> tuple[str, bytes]:
    """The way in which a connection ended, and the bytes before its end: ("eof" | "reset", bytes)."""
    data = bytearray()
    try:
        while part := sock.recv(1 << 16):
            data += part
    except ConnectionResetError:
        return "reset", bytes(data)
    return "eof", bytes(data)


def end_of_new(address: tuple[str, int] | str) -> tuple[str, bytes]:
    """Connect, and read to the end; as `end_of`. A listener that refuses at once may reset before `connect` returns."""
    try:
        sock = connect(address)
    except ConnectionResetError:
        return "reset", b""
    with sock:
        return end_of(sock)


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now.

    The port is below the range that the kernel uses for outgoing connections and for port 0, and each of the processes that run
    tests side by side has ports of its own. So a parallel test cannot take it before it is used.
    """
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(1000):
        port = random.randrange(10_000 + process, max(first_ephemeral, 20_000), processes)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                return port
    raise AssertionError("no free port")


def talk(sock: socket.socket) -> None:
    """Send a word to an echoing target, and read it back."""
    sock.sendall(b"word")
    assert read_exactly(sock, 4) == b"word"


class Target:
    """An application server with a thread for each connection. It counts its connections.

    Args:
        serve: handles a connection, which is closed afterwards. The default echoes.
        listener: a bound socket; the default is a port of 127.0.0.1.
    """

    def __init__(self, serve: Callable[[socket.socket], None] | None = None, listener: socket.socket | None = None) -> None:
        self._serve = serve or echo
        if listener is None:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
        self._listener = listener
        self._listener.listen(4096)
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.dials = 0
        self.failures: list[BaseException] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def to(self) -> str:
        """The address for --to."""
        name = self._listener.getsockname()
        if isinstance(name, str):
            return f"unix:{name}"
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def dialled(self, times: int) -> bool:
        """Whether it was connected to so many times. The thread that accepts may be late: it has a few seconds to come so far."""
        for _ in range(500):
            if self.dials >= times:
                break
            time.sleep(0.01)
        return self.dials == times

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.dials += 1
                self._live.add(sock)
            threading.Thread(target=self._handle, args=(sock,), daemon=True).start()

    def _handle(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        try:
            self._serve(sock)
        except OSError as exc:
            self.failures.append(exc)
        finally:
            with self._lock:
                self._live.discard(sock)
            sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._live:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def echo(sock: socket.socket) -> None:
    """Send everything back, up to EOF."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)


@contextlib.contextmanager
def unix_listener(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        yield sock
