"""Sockets of the protocol beside plain TCP: small calls that agree, and the differences that docs/KERNEL.md names."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import socket
import struct
from typing import Final

import pytest

from .netlink_agent import Agent, Link
from .peer import read_exactly
from .refusals import refused
from .sockets import start, stcp_socket, tcp_listener
from .test_stcp_socket_poll import Plain, Protocol

KINDS: Final = pytest.mark.parametrize("kind", [Plain, Protocol])
SIOCATMARK: Final = 0x8905
SIOCOUTQ: Final = 0x5411
SIOCOUTQNSD: Final = 0x894B
SO_ATTACH_FILTER: Final = 26
SO_PEEK_OFF: Final = 42
SO_INCOMING_CPU: Final = 49
SO_ATTACH_REUSEPORT_CBPF: Final = 51


def number_of(sock: socket.socket, request: int) -> int:
    number = array.array("i", [-1])
    fcntl.ioctl(sock, request, number)
    return number[0]


def attach(sock: socket.socket, option: int, answer: int) -> None:
    """A filter that returns the number at once."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, answer))
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@HP", 1, ctypes.addressof(code)))


LIBC: Final = ctypes.CDLL(None, use_errno=True)


def disconnect(sock: socket.socket) -> int:
    """connect(AF_UNSPEC). Return: 0 or an errno."""
    return ctypes.get_errno() if LIBC.connect(sock.fileno(), bytes(16), 16) else 0


def receive_nothing(sock: socket.socket) -> int:
    """A recv() of length 0, for which Python makes no call. Return: 0 or an errno."""
    return ctypes.get_errno() if LIBC.recv(sock.fileno(), bytes(1), 0, 0) else 0


def connected(opened: contextlib.ExitStack, kind: type[Plain]) -> tuple[socket.socket, socket.socket, Plain]:
    one = kind(opened)
    return *one.pair(), one


@KINDS
def test_a_send_of_nothing(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, _, _ = connected(opened, kind)
        assert near.send(b"") == 0
        near.shutdown(socket.SHUT_WR)
        with refused(errno.EPIPE):
            near.send(b"")


@KINDS
def test_the_mark_of_urgent_bytes(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, _, _ = connected(opened, kind)
        assert number_of(near, SIOCATMARK) == 0


def test_nothing_is_unsent_before_the_connection_is_there(link: Link) -> None:
    with tcp_listener(backlog=0) as full, socket.create_connection(full.getsockname()):
        for make in (socket.socket, stcp_socket):
            with make() as sock:
                sock.setblocking(False)
                assert sock.connect_ex(full.getsockname()) == errno.EINPROGRESS
                assert (number_of(sock, SIOCOUTQ), number_of(sock, SIOCOUTQNSD)) == (0, 0)
    with tcp_listener() as listener, start(listener) as sock:
        link.wait_ready()
        assert (number_of(sock, SIOCOUTQ), number_of(sock, SIOCOUTQNSD)) == (0, 0)


# -- differences, each of which docs/KERNEL.md names ----------------------------------------------------------------------------


def test_no_offset_for_peeking(agent: Agent) -> None:
    with stcp_socket() as sock, refused(errno.EOPNOTSUPP):
        sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)


@KINDS
def test_a_filter_of_the_socket(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, _, one = connected(opened, kind)
        near.settimeout(1)
        attach(near, SO_ATTACH_FILTER, 0)  # it drops every segment
        one.say(b"text")
        if kind is Plain:
            with pytest.raises(TimeoutError):
                near.recv(4)
        else:
            assert read_exactly(near, 4) == b"text"


@KINDS
def test_the_cpu_of_the_socket_and_a_choice_of_listeners(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, _, one = connected(opened, kind)
        near.setsockopt(socket.SOL_SOCKET, SO_INCOMING_CPU, 77)
        one.say(b"text")
        near.settimeout(10)
        assert read_exactly(near, 4) == b"text"
        found = near.getsockopt(socket.SOL_SOCKET, SO_INCOMING_CPU)
        assert (found < 77) if kind is Plain else (found == 77)
        # Of two listeners the filter chooses the second.
        first, second = (one.make() for _ in range(2))
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(first.getsockname() if sock is second else ("127.0.0.1", 0))
            sock.listen()
        attach(first, SO_ATTACH_REUSEPORT_CBPF, 1)
        for _ in range(24):
            opened.enter_context(socket.create_connection(first.getsockname()))
        first.settimeout(2)
        if kind is Plain:
            with pytest.raises(TimeoutError):
                first.accept()
        else:
            opened.enter_context(first.accept()[0])


@KINDS
def test_disconnect(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, _, one = connected(opened, kind)
        listener = one.make()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        answer = 0 if kind is Plain else errno.EOPNOTSUPP
        assert (disconnect(near), disconnect(listener)) == (answer, answer)


@KINDS
def test_connect_after_a_failed_listen(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened, tcp_listener() as target:
        one = kind(opened)
        first, second = (one.make() for _ in range(2))
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(first.getsockname() if sock is second else ("127.0.0.1", 0))
        first.listen()
        with refused(errno.EADDRINUSE):
            second.listen()
        second.settimeout(10)
        assert second.connect_ex(target.getsockname()) == (0 if kind is Plain else errno.EINVAL)


@KINDS
def test_a_recv_of_nothing(agent: Agent, kind: type[Plain]) -> None:
    with contextlib.ExitStack() as opened:
        near, _, _ = connected(opened, kind)
        assert receive_nothing(near) == (errno.EAGAIN if kind is Plain else 0)
