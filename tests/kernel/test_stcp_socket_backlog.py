"""Places of a listener."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from .netlink_agent import Link, done, take
from .peer import PATIENCE
from .test_stcp_socket_listen import listening

HERE = "127.0.0.1"


def call(listener: socket.socket, source: str = HERE) -> socket.socket:
    return socket.create_connection(listener.getsockname(), PATIENCE, (source, 0))


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
