"""Places of a listener: the end of connections beyond the share of their source, and of those that are refused."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

from .netlink_agent import Link, Taken, done, take, wait_taken
from .peer import PATIENCE, how_it_ends
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
