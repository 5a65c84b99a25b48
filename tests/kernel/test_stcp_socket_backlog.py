"""Places of a listener: sources share them, silent connections lose them to newcomers, and others wait in TCP's queue."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator

import pytest

from .netlink_agent import Link, Taken, done, take, wait_taken
from .peer import PATIENCE, how_it_ends, stat
from .sockets import sysctl
from .test_stcp_socket_listen import listening

HERE, SILENT, OTHER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
LONG = "30000"  # of handshake_ms: no handshake of these tests ends by its time
SOON = 10  # seconds, far less than that
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def call(listener: socket.socket, source: str = HERE) -> socket.socket:
    return socket.create_connection(listener.getsockname(), PATIENCE, (source, 0))


def begin_call(where: tuple[str, int], source: str) -> socket.socket:
    """A connection attempt that does not wait for TCP's queue."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.setblocking(False)
    sock.connect_ex(where)
    return sock


def close(*many: list[socket.socket]) -> None:
    for socks in many:
        for sock in socks:
            sock.close()


def silent_calls(link: Link, listener: socket.socket, *sources: str) -> tuple[list[socket.socket], list[Taken]]:
    """Connections that the agent has, and that never say a word."""
    peers = [call(listener, source) for source in sources]
    found = [wait_taken(link) for _ in peers]
    for taken in found:
        os.close(taken.fd)
    return peers, found


def serve(link: Link, listener: socket.socket, peer: socket.socket) -> None:
    """The connection gets to the agent soon, and to accept()."""
    deadline = time.monotonic() + SOON
    while (taken := take(link)) is None:
        assert time.monotonic() < deadline, "a newcomer did not get to the agent"
        time.sleep(0.01)
    os.close(taken.fd)
    done(link, taken.number, swapped=True)
    sock, whence = listener.accept()
    assert whence == peer.getsockname()
    sock.close()


def test_a_newcomer_takes_the_place_of_a_silent_one(link: Link) -> None:
    """The oldest of the source that has most of them loses it, and nobody loses anything while nobody waits."""
    with sysctl("handshake_ms", LONG), listening(backlog=8) as listener:
        silent, found = silent_calls(link, listener, *[SILENT] * 6, *[OTHER] * 2)
        time.sleep(1.5)
        assert select.select(silent, [], [], 0)[0] == []
        failed = stat()["HandshakesFailed"]
        newcomer = call(listener)
        serve(link, listener, newcomer)
        assert select.select(silent, [], [], 0.3)[0] == silent[:1]
        assert how_it_ends(silent[0])[1] in ("eof", "reset")
        with pytest.raises(FileNotFoundError):
            done(link, found[0].number)
        assert stat()["HandshakesFailed"] == failed + 1
        close(silent, [newcomer])


def test_many_newcomers_take_many_places(link: Link) -> None:
    """At most one silent connection ends for each newcomer, all of them of the source that has most."""
    with sysctl("handshake_ms", LONG), listening(backlog=8) as listener:
        silent, _ = silent_calls(link, listener, *[SILENT] * 6, *[OTHER] * 2)
        newcomers = [call(listener) for _ in range(4)]
        for newcomer in newcomers:
            serve(link, listener, newcomer)
        ended = select.select(silent, [], [], 0.3)[0]
        assert ended == silent[: len(ended)]
        assert 1 <= len(ended) <= 4
        close(silent, newcomers)


@pytest.mark.parametrize("backlog", [1, 2, 3])
def test_few_places(link: Link, backlog: int) -> None:
    """A source may have all of them."""
    with sysctl("handshake_ms", LONG), listening(backlog=backlog) as listener:
        silent, _ = silent_calls(link, listener, *[SILENT] * backlog)
        newcomer = call(listener)
        serve(link, listener, newcomer)
        assert how_it_ends(silent[0])[1] in ("eof", "reset")
        close(silent, [newcomer])


def test_a_source_leaves_a_place(link: Link) -> None:
    with sysctl("handshake_ms", LONG), listening(backlog=4) as listener:
        silent, _ = silent_calls(link, listener, *[SILENT] * 3)
        beyond = call(listener, SILENT)
        beyond.settimeout(SOON)
        assert how_it_ends(beyond)[1] in ("eof", "reset")
        newcomer = call(listener)
        serve(link, listener, newcomer)
        assert select.select(silent, [], [], 0)[0] == []
        close(silent, [beyond, newcomer])


def test_silent_ones_that_fill_the_share_of_the_user(link: Link) -> None:
    """A backlog of more than half of max_embryos is never full."""
    with sysctl("handshake_ms", LONG), listening(backlog=16) as listener, sysctl("max_embryos", "8"):
        silent, _ = silent_calls(link, listener, *[SILENT] * 4)
        newcomer = call(listener)
        serve(link, listener, newcomer)
        assert select.select(silent, [], [], 0.3)[0] == silent[:1]
        close(silent, [newcomer])


class SlowAgent:
    """An agent that takes every handshake at once, reads nothing, and says later that each is good.

    Attributes:
        lost: how many were over by then.
    """

    def __init__(self, delay: float = 0.5) -> None:
        self.delay, self.lost = delay, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        link = Link()
        link.register()
        answers: deque[tuple[float, int]] = deque()
        while not self._stop.is_set():
            while (taken := take(link)) is not None:
                os.close(taken.fd)
                answers.append((time.monotonic() + self.delay, taken.number))
            while answers and answers[0][0] <= time.monotonic():
                try:
                    done(link, answers.popleft()[1], swapped=True)
                except FileNotFoundError:
                    self.lost += 1
            time.sleep(0.01)
        link.close()

    def __enter__(self) -> SlowAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def begin_burst(listener: socket.socket, count: int) -> list[socket.socket]:
    """Connections from four addresses in turn, so none of them is beyond the share of its source."""
    return [begin_call(listener.getsockname(), f"127.0.0.{2 + number % 4}") for number in range(count)]


def all_served(listener: socket.socket, agent: SlowAgent, peers: list[socket.socket]) -> None:
    served = [listener.accept() for _ in peers]
    assert {whence for _, whence in served} == {peer.getsockname() for peer in peers}
    assert agent.lost == 0
    assert select.select(peers, [], [], 0)[0] == []
    close([sock for sock, _ in served])


def test_a_burst_of_three_backlogs_loses_none() -> None:
    """The listener is full for longer than a silent embryo would have, and each handshake ends in time."""
    with listening(backlog=8) as listener, SlowAgent() as agent:
        peers = begin_burst(listener, 24)
        all_served(listener, agent, peers)
        close(peers)


def test_an_agent_that_is_slow_loses_none() -> None:
    """It has not read what the peers have said for longer than a silent embryo would have: they are not silent."""
    with sysctl("handshake_ms", LONG), listening(backlog=8) as listener, SlowAgent(3) as agent:
        peers = begin_burst(listener, 16)
        for peer in select.select([], peers, [], SOON)[1]:
            peer.sendall(b"first message")
        served = [listener.accept()[0] for _ in range(8)]
        assert agent.lost == 0
        close(served, peers)


def test_an_agent_that_comes_late_finds_all() -> None:
    """The listener and TCP's queue are full for three seconds before the agent takes the first."""
    with sysctl("handshake_ms", LONG), listening(backlog=8) as listener:
        peers = begin_burst(listener, 16)
        time.sleep(3)
        with SlowAgent() as agent:
            all_served(listener, agent, peers)
        close(peers)


def connect_until(where: tuple[str, int], end: float) -> None:
    while time.monotonic() < end:
        socks = [begin_call(where, SILENT) for _ in range(8)]
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        close(socks)


@contextlib.contextmanager
def flood(where: tuple[str, int], seconds: float) -> Iterator[None]:
    """Two processes that connect as fast as they can from one address."""
    pids = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            try:
                connect_until(where, time.monotonic() + seconds)
            finally:
                os._exit(0)
        pids.append(pid)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_flood_does_not_delay_the_end_of_others(link: Link) -> None:
    """What is beyond the share of its source is closed, for as long as it comes; who is refused meanwhile sees it soon."""
    with sysctl("handshake_ms", LONG), listening(backlog=8) as listener:
        silent, _ = silent_calls(link, listener, *[SILENT] * 6)
        (refused,), (taken,) = silent_calls(link, listener, OTHER)
        with flood(listener.getsockname(), 2 * SOON):
            time.sleep(1)
            done(link, taken.number, errno.EACCES)
            refused.settimeout(SOON)
            assert how_it_ends(refused)[1] in ("eof", "reset")
        close(silent, [refused])


def test_a_connection_that_is_over_as_soon_as_it_has_begun(link: Link) -> None:
    """The agent ends a handshake, and the program the connection, while the listener still works at it."""
    end = time.monotonic() + 4
    served = 0

    def answer() -> None:
        while time.monotonic() < end + 1:
            if (taken := take(link)) is not None:
                os.close(taken.fd)
                with contextlib.suppress(FileNotFoundError):
                    done(link, taken.number, swapped=True)

    def accept() -> None:
        nonlocal served
        while time.monotonic() < end + 1:
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()
                served += 1

    def connect() -> None:
        while time.monotonic() < end:
            call(listener).close()

    with listening(backlog=128) as listener:
        listener.settimeout(0.5)
        threads = [threading.Thread(target=run) for run in (answer, accept, connect, connect)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert served > 20
