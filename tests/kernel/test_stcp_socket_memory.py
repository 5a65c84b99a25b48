"""Memory of sockets of the protocol: frames that nobody reads, and small ones."""

from __future__ import annotations

import array
import contextlib
import fcntl
import random
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .netlink_agent import Agent
from .peer import DATA, eventually, free_memory, noise, read_exactly
from .sockets import Pair
from .test_memory import PAGE

FIONREAD = 0x541B
LOOKED_AT = 256 << 10
"""Bytes of memory that a program which only looks may make a socket hold, and one frame more."""
FRAME = 17 * PAGE


def look(sock: socket.socket) -> int:
    """FIONREAD: frames are opened to be counted."""
    size = array.array("i", [0])
    fcntl.ioctl(sock, FIONREAD, size)
    return size[0]


def look_at_all(sock: socket.socket) -> int:
    """Looks until nothing more comes for a second."""
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < 1:
        if (now := look(sock)) > seen:
            seen, since = now, time.monotonic()
    return seen


@contextlib.contextmanager
def sending(p: Pair, raw: bytes) -> Iterator[None]:
    """The peer sends while the application does something else. What cannot be sent at the end is given up."""

    def send() -> None:
        with contextlib.suppress(OSError):
            p.peer.sendall(raw)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        p.peer.shutdown(socket.SHUT_WR)
        thread.join()


def test_frames_of_one_byte_that_are_only_looked_at(agent: Agent) -> None:
    """A page for each of them would be 80 MB."""
    with Pair() as p:
        data = noise(20_000)
        raw = b"".join(p.down.seal(DATA, data[at : at + 1]) for at in range(len(data)))
        free = free_memory()
        with sending(p, raw):
            eventually(lambda: look(p.app) == len(data), "they do not come")
            taken = free - free_memory()
            print(f"{taken} bytes taken, {p.status().buffered} of them for texts")
            assert taken < 20 << 20
            assert len(data) <= p.status().buffered <= 2 * len(data)
            assert p.app.recv(50_000, socket.MSG_PEEK) == data
            assert read_exactly(p.app, len(data)) == data
            assert p.status().buffered <= PAGE


@pytest.mark.parametrize("size", [2100, 8200, 65516])
def test_a_look_holds_a_receive_buffer_at_most(agent: Agent, size: int) -> None:
    """Its pages count: no frame of these sizes finds room in those of the last one."""
    with Pair() as p:
        data = noise(size)
        with sending(p, b"".join(p.down.seal(DATA, data) for _ in range(700_000 // size))):
            seen = look_at_all(p.app)
            held = p.status().buffered
            print(f"{seen} bytes of text, {held} held")
            assert seen // size * -(-(size + 20) // PAGE) * PAGE < LOOKED_AT + FRAME
            assert LOOKED_AT // 2 - FRAME < seen <= held < LOOKED_AT + 2 * FRAME
            assert len(p.app.recv(1 << 20, socket.MSG_PEEK)) == seen
            assert read_exactly(p.app, 3 * size) == 3 * data


def test_looks_and_reads_of_frames_of_all_sizes(agent: Agent) -> None:
    rng = random.Random(7)
    with Pair() as p:
        sizes = [rng.choice((1, rng.randint(1, 40), rng.randint(2000, 4200), rng.randint(1, 65516))) for _ in range(120)]
        data, raw, at = noise(sum(sizes)), b"", 0
        for size in sizes:
            raw += p.down.seal(DATA, data[at : at + size])
            at += size
        with sending(p, raw):
            at = 0
            while at < len(data):
                if rng.random() < 0.5:
                    look(p.app)
                if rng.random() < 0.5:
                    seen = p.app.recv(rng.randint(1, 200_000), socket.MSG_PEEK)
                    assert seen == data[at : at + len(seen)]
                got = p.app.recv(rng.choice((1, rng.randint(1, 5000), rng.randint(1, 200_000))))
                assert got == data[at : at + len(got)]
                at += len(got)
        assert p.status().buffered <= PAGE


@pytest.mark.parametrize("text", [b"", b"x"], ids=["empty frames", "frames of one byte"])
def test_an_edge_of_epoll_comes_for_what_a_call_has_left(agent: Agent, text: bytes) -> None:
    """One call takes a bounded number of frames. A program that waits for edges must hear of the rest."""
    with Pair() as p, select.epoll() as edges:
        p.app.setblocking(False)
        edges.register(p.app, select.EPOLLIN | select.EPOLLET)
        p.peer.sendall(b"".join(p.down.seal(DATA, text) for _ in range(3000)) + p.down.seal(DATA, b"end"))
        time.sleep(1)  # until all of them are there: later ones would be edges of their own
        got = b""
        while not got.endswith(b"end"):
            assert edges.poll(10), f"no edge after {len(got)} bytes"
            with contextlib.suppress(BlockingIOError):
                while len(chunk := p.app.recv(1 << 16)) == 1 << 16:
                    got += chunk
                got += chunk
        assert got == 3000 * text + b"end"
