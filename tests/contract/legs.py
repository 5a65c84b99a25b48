"""Sockets of a test, and what it sends and reads through them. Every wait is bounded by `PATIENCE`."""

from __future__ import annotations

import hashlib
import os
import random
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

PATIENCE: Final = 8.0 * float(os.environ.get("STCP_TEST_PATIENCE", "1"))
"""Seconds after which something that should have happened counts as never happening; more under the kernel's checkers."""
QUIET: Final = 0.15
"""Seconds without progress after which a stream counts as stalled."""

Ending: TypeAlias = Literal["eof", "reset"]
"""How a stream ended for its reader."""


# -- bytes ---------------------------------------------------------------------------------------------------------------


def noise(size: int, seed: int = 1) -> bytes:
    """The same `size` random bytes every time."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- sockets -------------------------------------------------------------------------------------------------------------


def tcp_pair(family: socket.AddressFamily = socket.AF_INET, *, buffers: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Two ends of one loopback connection, as the product sets its legs up: no Nagle. Blocking, with `PATIENCE` as timeout.

    Args:
        family: AF_INET or AF_INET6.
        buffers: fixed size of all socket buffers, where a test wants to know how much the kernel can hold.
    """
    with socket.socket(family) as listener:
        if buffers is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        listener.listen(1)
        a = socket.socket(family)
        if buffers is not None:
            a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        a.settimeout(PATIENCE)
        a.connect(listener.getsockname())
        b, _ = listener.accept()
    for sock in (a, b):
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffers is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    return a, b


def reset(sock: socket.socket) -> None:
    """Close with a TCP RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """The next `size` bytes; fails when the stream ends before."""
    out = bytearray()
    while len(out) < size:
        chunk = sock.recv(min(size - len(out), 1 << 18))
        assert chunk, f"EOF after {len(out)} of {size} bytes"
        out += chunk
    return bytes(out)


def read_to_end(sock: socket.socket) -> tuple[bytes, Ending]:
    """All bytes up to the end of the stream, and how it ended."""
    out = bytearray()
    while True:
        try:
            chunk = sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            # Linux says EPIPE for a reset that meets a socket which has already read EOF.
            return bytes(out), "reset"
        if not chunk:
            return bytes(out), "eof"
        out += chunk


def wait_reset(sock: socket.socket) -> None:
    """Wait until a socket that may already have read EOF is reset."""
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(PATIENCE * 1000), "the connection was not reset"
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the connection ended without a reset"


def quiet(sock: socket.socket, seconds: float = QUIET) -> bool:
    """Whether nothing, not even an end, arrives at `sock` for a moment."""
    return not select.select([sock], [], [], seconds)[0]


def send_chunks(sock: socket.socket, data: bytes, seed: int = 1, *, largest: int = 30_000, end: bool = False) -> None:
    """Send `data` in chunks of random sizes, and end this direction behind them where `end` says so."""
    rng = random.Random(seed)
    at = 0
    while at < len(data):
        size = rng.choice((1, rng.randint(1, 100), rng.randint(1, largest)))
        sock.sendall(data[at : at + size])
        at += size
    if end:
        sock.shutdown(socket.SHUT_WR)


def send_and_end(sock: socket.socket, data: bytes) -> None:
    """Send `data` and end this direction."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def send_until_stalled(sock: socket.socket, chunks: Callable[[], bytes], *, limit: int) -> tuple[int, bytes]:
    """Send what `chunks` yields until nothing moves for `QUIET` seconds.

    Returns:
        Bytes that were taken, and the unsent rest of the last chunk.
    """
    sent = 0
    while True:
        rest = chunks()
        while rest:
            if not select.select([], [sock], [], QUIET)[1]:
                return sent, rest
            size = sock.send(rest, socket.MSG_DONTWAIT)
            rest = rest[size:]
            sent += size
            assert sent < limit, "nothing pushes back"


class Background:
    """A function on a thread of its own; `join` waits for it and raises what it raised."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as exc:
            self._error = exc

    def join(self, patience: float = 3 * PATIENCE) -> None:
        self._thread.join(patience)
        assert not self._thread.is_alive(), "a background task does not finish"
        if self._error is not None:
            raise self._error
