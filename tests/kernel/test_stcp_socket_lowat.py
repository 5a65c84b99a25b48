"""When sockets of the protocol are readable: SO_RCVLOWAT, and frames that are as large as TCP's window."""

from __future__ import annotations

import array
import fcntl
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

import pytest

from .netlink_agent import Agent
from .peer import DATA, FIN, KEY_DOWN, KEY_UP, MAX_TEXT, RESET, Cipher, eventually, how_it_ends, noise, read_exactly
from .sockets import Pair, address, stcp_socket

SIOCOUTQ: Final = 0x5411
PATIENCE: Final = 10
"""A lost wake-up takes so many seconds to be noticed."""


def low_water(sock: socket.socket, size: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def all_delivered(sock: socket.socket) -> bool:
    size = array.array("i", [0])
    fcntl.ioctl(sock, SIOCOUTQ, size)
    return not size[0]


def deliver(p: Pair, raw: bytes) -> None:
    p.peer.sendall(raw)
    eventually(lambda: all_delivered(p.peer), "TCP does not take the bytes")


def read_text(sock: socket.socket, size: int) -> bytes:
    """With a timeout, Python asks poll() before each recv()."""
    low_water(sock, 1)
    return read_exactly(sock, size)


def by_select(sock: socket.socket) -> Callable[[float], object]:
    return lambda patience: select.select([sock], [], [], patience)[0]


def by_poll(sock: socket.socket) -> Callable[[float], object]:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda patience: poll.poll(patience * 1000)


def by_epoll(sock: socket.socket) -> Callable[[float], object]:
    edges = select.epoll()
    edges.register(sock, select.EPOLLIN | select.EPOLLET)
    return edges.poll


@pytest.mark.parametrize("by", [by_select, by_poll, by_epoll])
def test_a_low_water_mark_above_the_window(agent: Agent, by: Callable[[socket.socket], Callable[[float], object]]) -> None:
    with Pair() as p:
        low_water(p.app, 300_000)
        readable = by(p.app)
        data = noise(400_000)
        raw = b"".join(p.down.seal(DATA, data[at : at + MAX_TEXT]) for at in range(0, len(data), MAX_TEXT))
        thread = threading.Thread(target=p.peer.sendall, args=(raw,))
        thread.start()
        found = readable(PATIENCE)
        assert read_text(p.app, len(data)) == data
        thread.join()
        assert found


@pytest.mark.parametrize("listens", [False, True], ids=["connects", "inherits it from the listener"])
def test_text_that_the_agent_has_read_counts(listens: bool) -> None:
    text = noise(80)
    with Agent(wire=Cipher(KEY_UP if listens else KEY_DOWN).seal(DATA, text)):
        if not listens:
            with Pair() as p:
                low_water(p.app, 4)
                assert by_select(p.app)(PATIENCE)
                assert p.app.recv(100) == text
            return
        with stcp_socket() as listener:
            low_water(listener, 4)
            listener.bind((address(socket.AF_INET), 0))
            listener.listen()
            with socket.create_connection(listener.getsockname()), listener.accept()[0] as app:
                assert app.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 4
                assert by_select(app)(PATIENCE)
                assert app.recv(100) == text


def test_the_part_of_a_frame_that_the_agent_has_read_counts() -> None:
    text = noise(MAX_TEXT)
    raw = Cipher(KEY_DOWN).seal(DATA, text)
    with Agent(wire=raw[:60_000]), Pair() as p:
        low_water(p.app, 40_000)
        assert not by_select(p.app)(0.1)
        p.peer.sendall(raw[60_000:])
        assert by_select(p.app)(PATIENCE)
        assert read_text(p.app, len(text)) == text


def test_a_frame_in_two_parts_with_a_recv_between_them(agent: Agent) -> None:
    text = noise(MAX_TEXT)
    with Pair() as p:
        p.app.setblocking(True)  # a timeout of Python's would ask poll() before recv()
        low_water(p.app, 40_000)
        raw = p.down.seal(DATA, text)
        deliver(p, raw[:65_530])
        with pytest.raises(BlockingIOError):
            p.app.recv(1 << 17, socket.MSG_DONTWAIT)
        p.peer.sendall(raw[65_530:])
        assert by_select(p.app)(PATIENCE)
        assert read_text(p.app, len(text)) == text


@pytest.mark.parametrize(
    ("raw", "ending"),
    [
        (lambda cipher: cipher.seal(FIN), "eof"),
        (lambda cipher: cipher.seal(RESET, b"\x00\x07over"), "reset"),
        (lambda _: b"\x00\x01\x00\x20", "reset"),
    ],
    ids=["FIN", "RESET", "a header that is not allowed"],
)
def test_an_end_is_readable_below_the_low_water_mark(agent: Agent, raw: Callable[[Cipher], bytes], ending: str) -> None:
    with Pair() as p:
        low_water(p.app, 1000)
        assert not by_select(p.app)(0.1)
        p.peer.sendall(raw(p.down))
        assert by_select(p.app)(PATIENCE)
        assert how_it_ends(p.app) == (0, ending)


@pytest.mark.parametrize("piece", [1000, 16_384, 65_530])
def test_a_frame_of_the_largest_size_fits_the_window(agent: Agent, piece: int) -> None:
    """Where it does not, poll() reports that the window is full, and recv() has nothing to return."""
    text = noise(MAX_TEXT)
    with Pair() as p:
        p.app.setblocking(True)
        p.peer.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            raw = p.down.seal(DATA, text)
            for at in range(0, 65_530, piece):
                deliver(p, raw[at : min(at + piece, 65_530)])
            assert not by_select(p.app)(0.2)
            p.peer.sendall(raw[65_530:])
            assert by_select(p.app)(PATIENCE)
            assert p.app.recv(1 << 17, socket.MSG_DONTWAIT) == text
