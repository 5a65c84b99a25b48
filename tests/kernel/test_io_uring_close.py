"""close() by io_uring: the thread that submits it carries it out, or a worker of the ring does. It is a close() as any other."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .io_uring import CLOSE, INLINE, WORKER, Ring
from .netlink_agent import Agent
from .peer import DATA, FIN, RESET, Relay, eventually, how_it_ends, references
from .sockets import Pair

PLACES = pytest.mark.parametrize("place", [pytest.param(INLINE, id="inline"), pytest.param(WORKER, id="worker")])
LONG = 1000  # seconds of SO_LINGER, far beyond the patience of a test


@pytest.fixture
def ring() -> Iterator[Ring]:
    try:
        one = Ring()
    except OSError as exc:
        if exc.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        pytest.skip("this kernel has no io_uring, or the sysctl kernel.io_uring_disabled forbids it")
    yield one
    one.close()


def linger(sock: socket.socket, seconds: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))


@contextlib.contextmanager
def closed(ring: Ring, sock: socket.socket, place: int) -> Iterator[threading.Event]:
    """Within, the completion is there. Yields an event: the system call of the thread that submits has returned.

    The thread stays until the end, for its workers end with it. It must be able to leave then.
    """
    submitted, leave = threading.Event(), threading.Event()

    def submit() -> None:
        ring.submit(CLOSE, sock.detach(), place)
        submitted.set()
        leave.wait()

    thread = threading.Thread(target=submit, daemon=True)
    thread.start()
    try:
        assert ring.result(10) == 0
        yield submitted
    finally:
        leave.set()
    thread.join(10)
    assert not thread.is_alive(), "the thread or its worker stands still"


def nothing_left(before: int) -> None:
    eventually(lambda: references() == before, "a socket is left")


@PLACES
@pytest.mark.parametrize("seconds", [None, LONG])
def test_what_was_sent_arrives(agent: Agent, ring: Ring, place: int, seconds: int | None) -> None:
    before = references()
    with Pair() as p:
        sent = p.send_until_full()
        if seconds:
            linger(p.app, seconds)
        with closed(ring, p.app, place) as submitted:
            # With SO_LINGER the thread that closes waits for the peer, as in close(). The completion does not wait.
            waits = place == INLINE and seconds == LONG
            assert submitted.wait(1 if waits else 10) != waits
            p.read_data(sent)
            assert p.read_frame() == (FIN, b"")
            assert how_it_ends(p.peer) == (0, "eof")
    nothing_left(before)


@PLACES
@pytest.mark.parametrize(("seconds", "unread"), [(None, True), (LONG, True), (0, False)])
def test_a_close_that_resets(agent: Agent, ring: Ring, place: int, seconds: int | None, unread: bool) -> None:
    """With bytes that were not read, or SO_LINGER with a time of 0."""
    before = references()
    with Pair() as p:
        p.app.sendall(b"sent")
        if unread:
            p.send(DATA, b"not read")
            assert select.select([p.app], [], [], 10)[0]
        if seconds is not None:
            linger(p.app, seconds)
        with closed(ring, p.app, place):
            assert p.read_data(4) == b"sent"
            assert p.read_frame() == (RESET, b"\x00\x08")
            assert how_it_ends(p.peer) == (0, "eof")
    nothing_left(before)


@PLACES
def test_the_wire_leg_of_a_relay(ring: Ring, place: int) -> None:
    """An RST to both ends, also where a frame has come in part and bytes wait for an application that reads nothing."""
    r = Relay()
    r.check_alive()
    r.send(DATA, bytes(60_000))
    r.peer.sendall(r.down.seal(DATA, bytes(60_000))[:-1])
    with closed(ring, r.wire, place):
        assert how_it_ends(r.app)[1] == "reset"
        assert how_it_ends(r.peer) == (0, "reset")
    r.close()
    nothing_left(0)


def lingers(pid: int) -> bool:
    """Does a worker of this process wait in close()?"""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith("iou-wrk") and "stcp_sock_close" in (task / "stack").read_text():
            return True
    return False


def test_a_worker_that_lingers_dies_with_its_process(agent: Agent, ring: Ring) -> None:
    before = references()
    with Pair() as p:
        sent = p.send_until_full()
        linger(p.app, LONG)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.read(reader, 1)
                Ring().submit(CLOSE, p.app.fileno(), WORKER)
                signal.pause()
            finally:
                os._exit(1)
        p.app.close()
        os.write(writer, b"x")  # the child's reference is the last one now
        os.close(reader)
        os.close(writer)
        try:
            eventually(lambda: lingers(pid), "the worker does not linger", 10)
        finally:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, "the process does not die", 10)
        p.read_data(sent)
        assert p.read_frame() == (FIN, b"")
        assert how_it_ends(p.peer) == (0, "eof")
    nothing_left(before)
