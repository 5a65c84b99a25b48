"""Sockets of the protocol, with a peer on plain TCP that speaks frames."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from stcp_proxy.relay import kernel_abi as abi

from .peer import KEY_DOWN, KEY_UP, PATIENCE, Cipher, FramePeer

PROTOCOL = 253


def stcp_socket(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, PROTOCOL)
    sock.settimeout(PATIENCE)
    return sock


def address(family: socket.AddressFamily) -> str:
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def tcp_listener(family: socket.AddressFamily = socket.AF_INET, backlog: int = 16) -> socket.socket:
    sock = socket.socket(family)
    sock.bind((address(family), 0))
    sock.listen(backlog)
    sock.settimeout(PATIENCE)
    return sock


@contextmanager
def sysctl(name: str, value: str) -> Iterator[None]:
    path = Path("/proc/sys/net/stcp") / name
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


def start(listener: socket.socket) -> socket.socket:
    """A connection attempt that does not block."""
    sock = stcp_socket()
    sock.setblocking(False)
    assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    return sock


def outcome(sock: socket.socket, patience: float = 20) -> int:
    """SO_ERROR of an attempt, once poll() says that it is over."""
    assert select.select([], [sock], [], patience)[1] == [sock]
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


class Pair(FramePeer):
    """An application's socket of the protocol, connected to a peer. An agent has to be there.

    Args:
        connected: called before the peer is accepted, for TCP charges the cgroup of accept().

    Attributes:
        app: the socket of the protocol.
        peer: the other end of its inner socket.
        up: what the application's side seals with; `down`: what it opens with.
    """

    def __init__(
        self,
        family: socket.AddressFamily = socket.AF_INET,
        *,
        counters: tuple[int, int] = (0, 0),
        listens: bool = False,
        patience: float = PATIENCE,
        connected: Callable[[], None] = lambda: None,
    ) -> None:
        if listens:
            with stcp_socket(family) as listener:
                listener.settimeout(patience)
                listener.bind((address(family), 0))
                listener.listen()
                self.peer = socket.create_connection(listener.getsockname()[:2], patience)
                self.app, _ = listener.accept()
        else:
            with tcp_listener(family) as tcp:
                self.app = stcp_socket(family)
                self.app.settimeout(patience)
                self.app.connect(tcp.getsockname())
                connected()
                self.peer, _ = tcp.accept()
        self.app.settimeout(patience)
        self.peer.settimeout(patience)
        keys = (KEY_DOWN, KEY_UP) if listens else (KEY_UP, KEY_DOWN)
        self.up, self.down = Cipher(keys[0], counters[0]), Cipher(keys[1], counters[1])

    def status(self) -> abi.Status:
        return abi.Status.unpack(self.app.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size))

    def send_until_full(self) -> int:
        """Send until nothing has found room for half a second: the peer's receive buffer grows for a while. Returns bytes."""
        self.app.setblocking(False)
        sent = 0
        while select.select([], [self.app], [], 0.5)[1]:
            with suppress(BlockingIOError):
                sent += self.app.send(bytes(100_000))
        return sent

    def close(self) -> None:
        self.app.close()
        self.peer.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
