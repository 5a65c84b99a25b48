"""close() of sockets of the protocol where a thread of the kernel drops the last reference of the file."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator

from .netlink_agent import Agent
from .peer import DATA, FIN, eventually, references
from .sockets import Pair


@contextlib.contextmanager
def circle(fd: int) -> Iterator[None]:
    """Send a descriptor to a unix socket that is in its own queue. After this only the kernel can close it; close yours within.

    The unix socket is the last that is closed here, and its queue keeps it: so nobody looks for circles yet.
    """
    near, far = socket.socketpair()
    with far, near:
        socket.send_fds(near, [b"x"], [far.fileno(), fd])
        yield


@contextlib.contextmanager
def collected() -> Iterator[None]:
    """Have the kernel look for such circles: it does when a unix socket is closed. Before 6.9 the process that closes it closes
    what is found, and may linger, so it is another one."""
    pid = os.fork()
    if not pid:
        socket.socket(socket.AF_UNIX).close()
        os._exit(0)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_thread_of_the_kernel_closes_without_waiting(agent: Agent) -> None:
    """One worker closes files for everybody. SO_LINGER with bytes that nobody reads must not keep it from closing a pipe."""
    before = references()
    with Pair() as p:
        sent = p.send_until_full()
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
        with circle(p.app.fileno()):
            p.app.close()
        with collected():
            reader, writer = os.pipe()
            with circle(writer):
                os.close(writer)
            with collected():
                assert select.select([reader], [], [], 10)[0], "the worker stands still"
            os.close(reader)
            # Nothing of it was lost.
            p.read_data(sent)
            assert p.read_frame() == (FIN, b"")
    eventually(lambda: references() == before, "the socket is left")


def test_a_thread_of_the_kernel_resets_what_was_not_read(agent: Agent) -> None:
    before = references()
    with Pair() as p:
        p.send(DATA, b"not read")
        assert select.select([p.app], [], [], 10)[0]
        with circle(p.app.fileno()):
            p.app.close()
        with collected():
            kind, text = p.read_frame()
        assert (kind, text[:2]) == (2, b"\x00\x08")
    eventually(lambda: references() == before, "the socket is left")
