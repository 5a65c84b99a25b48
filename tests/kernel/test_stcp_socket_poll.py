"""What poll() and SO_ERROR report of a connection that failed, beside a plain TCP socket in the same state.

Their difference is the protocol's: after an end that is no FIN, recv() repeats the error, where TCP says EOF.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from .netlink_agent import Agent
from .peer import DATA, FIN, eventually, tcp_pair
from .sockets import Pair, stcp_socket

TCP_USER_TIMEOUT: Final = 18
FIONREAD: Final = 0x541B
NAMES: Final = ("IN", "PRI", "OUT", "ERR", "HUP", "NVAL", "RDNORM", "RDBAND", "WRNORM", "WRBAND", "RDHUP")
EVENTS: Final = {name: getattr(select, f"POLL{name}") for name in NAMES}


def polled(sock: socket.socket) -> set[str]:
    poll = select.poll()
    poll.register(sock, sum(EVENTS.values()))
    mask = sum(found for _, found in poll.poll(0))
    return {name for name, bit in EVENTS.items() if mask & bit}


class Plain:
    """TCP without the protocol."""

    def __init__(self, opened: contextlib.ExitStack) -> None:
        self.opened = opened

    def make(self) -> socket.socket:
        sock = self.opened.enter_context(socket.socket())
        sock.setblocking(False)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        near, self.far = (self.opened.enter_context(each) for each in tcp_pair())
        near.setblocking(False)
        return near, self.far

    def say(self, text: bytes) -> None:
        """The peer sends text, or its FIN."""
        self.far.sendall(text) if text else self.far.shutdown(socket.SHUT_WR)


class Protocol(Plain):
    """A socket of the protocol."""

    def make(self) -> socket.socket:
        sock = self.opened.enter_context(stcp_socket())
        sock.setblocking(False)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        self.frames = self.opened.enter_context(Pair())
        self.frames.app.setblocking(False)
        return self.frames.app, self.frames.peer

    def say(self, text: bytes) -> None:
        self.frames.send(DATA if text else FIN, text)
        if not text:
            self.frames.peer.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket, far: socket.socket) -> socket.socket:
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    eventually(lambda: {"HUP", "ERR"} <= polled(sock), "the RST does not come")
    return sock


def fresh(kind: Plain) -> socket.socket:
    return kind.make()


def unheard(kind: Plain) -> tuple[socket.socket, socket.socket]:
    """A connection attempt that nobody answers, for the listener's queue is full; and the listener."""
    listener = kind.opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    kind.opened.enter_context(socket.create_connection(listener.getsockname()))
    sock = kind.make()
    sock.setsockopt(socket.SOL_TCP, socket.TCP_SYNCNT, 1)
    assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
    return sock, listener


def connecting(kind: Plain) -> socket.socket:
    return unheard(kind)[0]


def unanswered(kind: Plain) -> socket.socket:
    sock = connecting(kind)
    eventually(lambda: "ERR" in polled(sock), "the time is not over")
    return sock


def refused(kind: Plain) -> socket.socket:
    """The second SYN is: an error that connect() itself returns would be gone already."""
    sock, listener = unheard(kind)
    listener.close()
    eventually(lambda: "ERR" in polled(sock), "nobody refuses")
    return sock


def connected(kind: Plain) -> socket.socket:
    return kind.pair()[0]


def was_reset(kind: Plain) -> socket.socket:
    return reset(*kind.pair())


def was_reset_behind_text(kind: Plain) -> socket.socket:
    sock, far = kind.pair()
    kind.say(b"text")
    eventually(lambda: "IN" in polled(sock), "the text does not come")
    return reset(sock, far)


def was_reset_behind_the_end(kind: Plain) -> socket.socket:
    sock, far = kind.pair()
    kind.say(b"")
    eventually(lambda: "IN" in polled(sock), "the end does not come")
    assert sock.recv(1) == b""
    return reset(sock, far)


def timed_out(kind: Plain) -> socket.socket:
    """The peer stops reading."""
    sock, _ = kind.pair()
    while select.select([], [sock], [], 0.5)[1]:
        with contextlib.suppress(BlockingIOError):
            sock.send(bytes(100_000))
    sock.setsockopt(socket.SOL_TCP, TCP_USER_TIMEOUT, 500)
    eventually(lambda: "ERR" in polled(sock), "TCP waits for ever")
    return sock


BEFORE: Final = [fresh, connecting, unanswered, refused]
AFTER: Final = [connected, was_reset, was_reset_behind_text, was_reset_behind_the_end, timed_out]


def so_error(sock: socket.socket) -> str:
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[number] if number else "no error"


def send(sock: socket.socket) -> str:
    try:
        return f"{sock.send(b'x')} sent"
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def receive(sock: socket.socket) -> str:
    try:
        return f"received {sock.recv(9)!r}"
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def observe(sock: socket.socket, calls: Sequence[Callable[[socket.socket], str]]) -> list[object]:
    found: list[object] = [polled(sock)]
    for call in calls:
        found += [f"{call.__name__}: {call(sock)}", polled(sock)]
    return found


ORDERS: Final[dict[str, list[Callable[[socket.socket], str]]]] = {
    "SO_ERROR first": [so_error, so_error, send, so_error],
    "send first": [send, so_error, send],
    "recv first": [receive, so_error, send],
}


@pytest.mark.parametrize("state", [*BEFORE, *AFTER], ids=lambda state: state.__name__)
def test_errors_are_reported_as_tcp_reports_them(agent: Agent, state: Callable[[Plain], socket.socket]) -> None:
    for name, calls in ORDERS.items():
        with contextlib.ExitStack() as opened:
            plain, ours = (observe(state(kind(opened)), calls) for kind in (Plain, Protocol))
        print(name, plain, sep=os.linesep)
        assert ours == plain, name


def test_an_error_that_was_read_does_not_come_back(agent: Agent) -> None:
    """Neither by FIONREAD nor by recv(), which find the end later than TCP's callback."""
    with contextlib.ExitStack() as opened:
        sock = was_reset(Protocol(opened))
        assert so_error(sock) == "ECONNRESET"
        fcntl.ioctl(sock, FIONREAD, bytearray(4))
        assert "ERR" not in polled(sock)
        assert [receive(sock), receive(sock)] == 2 * ["ECONNRESET"]
        assert so_error(sock) == "no error"
        assert "ERR" not in polled(sock)


def between(opened: contextlib.ExitStack, kind: type[Plain]) -> tuple[socket.socket, socket.socket]:
    """Two sockets of the kind, connected to each other."""
    if kind is Plain:
        return kind(opened).pair()
    listener = opened.enter_context(stcp_socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    near = opened.enter_context(stcp_socket())
    near.connect(listener.getsockname())
    return near, opened.enter_context(listener.accept()[0])


def hung_up(sock: socket.socket, patience: float) -> set[str]:
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return {name for _, mask in poll.poll(patience * 1000) for name, bit in EVENTS.items() if mask & bit}


HANG_UPS: Final[dict[str, Callable[[socket.socket], None]]] = {
    "close": lambda far: far.close(),
    "SHUT_WR": lambda far: far.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("kind", [Plain, Protocol])
@pytest.mark.parametrize("how", ["close", "SHUT_WR"])
@pytest.mark.parametrize("waits", [False, True], ids=["is there", "comes"])
def test_a_peer_that_hangs_up_before_anything_was_read(agent: Agent, kind: type[Plain], how: str, waits: bool) -> None:
    with contextlib.ExitStack() as opened:
        near, far = between(opened, kind)
        if waits:
            opened.callback((thread := threading.Timer(0.3, HANG_UPS[how], (far,))).join)
            thread.start()
        else:
            HANG_UPS[how](far)
        assert hung_up(near, 10) == {"RDHUP"}
        assert polled(near) == {"IN", "RDNORM", "OUT", "WRNORM", "RDHUP"}
        assert near.recv(1) == b""
        assert hung_up(near, 0) == {"RDHUP"}


@pytest.mark.parametrize("kind", [Plain, Protocol])
def test_a_peer_that_closes_behind_text(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, far = between(opened, kind)
        far.send(b"text")
        far.close()
        assert hung_up(near, 10) == {"RDHUP"}
        assert polled(near) == {"IN", "RDNORM", "OUT", "WRNORM", "RDHUP"}
        assert (near.recv(9), near.recv(9)) == (b"text", b"")


@pytest.mark.parametrize("kind", [Plain, Protocol])
def test_the_end_of_what_the_peer_sends_behind_text(agent: Agent, kind: type[Plain]) -> None:
    """Frames of text hide the FIN behind them from poll() until they are read."""
    with contextlib.ExitStack() as opened:
        near, far = between(opened, kind)
        far.send(b"text")
        far.shutdown(socket.SHUT_WR)
        assert hung_up(near, 1) == ({"RDHUP"} if kind is Plain else set())
        assert near.recv(4) == b"text"
        assert hung_up(near, 10) == {"RDHUP"}
