"""SIGIO (O_ASYNC) of sockets of the protocol, beside plain TCP."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from .netlink_agent import Agent
from .sockets import stcp_socket, tcp_listener
from .test_stcp_socket_poll import Plain, Protocol

F_SETOWN_EX: Final = 15
F_OWNER_TID: Final = 0
KINDS: Final = pytest.mark.parametrize("kind", [Plain, Protocol])


@pytest.fixture(autouse=True)
def blocked() -> Iterator[None]:
    """SIGIO waits for sigtimedwait(), in this thread: that of the agent has it not blocked."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    signal.signal(signal.SIGIO, before)


def tell_by_signals(sock: socket.socket) -> None:
    sock.setblocking(False)  # with a timeout Python would wait in poll()
    fcntl.fcntl(sock, F_SETOWN_EX, struct.pack("ii", F_OWNER_TID, threading.get_native_id()))
    fcntl.fcntl(sock, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)


def signalled(patience: float) -> bool:
    return signal.sigtimedwait({signal.SIGIO}, patience) is not None


def fill(sock: socket.socket) -> int:
    """Sends until there is no room, and for as long as a signal says that there is some again."""
    sent = 0
    while True:
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(100_000))
        if not signalled(0.5):
            return sent


@KINDS
def test_a_send_that_found_no_room_hears_of_it(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, far = kind(opened).pair()
        tell_by_signals(near)
        sent = fill(near)
        far.settimeout(10)
        left = sent
        while left > 0:
            left -= len(far.recv(1 << 20))
        assert signalled(10)
        assert near.send(b"x") == 1


@KINDS
def test_text_that_comes(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        one = kind(opened)
        near, _ = one.pair()
        tell_by_signals(near)
        one.say(b"text")
        assert signalled(10)


@KINDS
@pytest.mark.parametrize("answer", [0, errno.EACCES], ids=["connected", "refused"])
def test_the_end_of_connect(kind: type[Plain], answer: int) -> None:
    """Of the agent in the protocol; TCP of itself refuses with ECONNREFUSED."""
    with Agent(answer), tcp_listener() as listener, stcp_socket() if kind is Protocol else socket.socket() as sock:
        tell_by_signals(sock)
        name = ("127.0.0.1", 1) if answer and kind is Plain else listener.getsockname()
        number = sock.connect_ex(name)
        if number == errno.EINPROGRESS:
            assert signalled(10)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert number == (0 if not answer else answer if kind is Protocol else errno.ECONNREFUSED)
