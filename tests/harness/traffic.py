"""Connections with continuous traffic during a test. Every received byte is checked."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator

from harness.process import wait_for
from harness.sockets import TIMEOUT, connect, read_exactly

Address = tuple[str, int] | str
_PAUSE = 0.02
"""Seconds between two exchanges. Without a pause, traffic takes all processors from the proxies and from the tests beside it."""


class Pumping:
    """Connections to an echo server that send and compare continuously.

    Args:
        address: the address of the server. Each connection is made once.
        count: the number of connections.

    Attributes:
        failures: all failures so far.
    """

    def __init__(self, address: Address, count: int) -> None:
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._done = [0] * count
        self._socks = [connect(address) for _ in range(count)]
        self._threads = [threading.Thread(target=self._pump, args=(n, sock)) for n, sock in enumerate(self._socks)]
        for thread in self._threads:
            thread.start()

    @property
    def exchanges(self) -> int:
        """The smallest number of exchanges of any connection."""
        return min(self._done)

    def go_on(self, exchanges: int = 3) -> None:
        """Return when every connection has made this number of further exchanges."""
        goal = [done + exchanges for done in self._done]
        wait_for(
            lambda: self.failures or all(done >= least for done, least in zip(self._done, goal, strict=True)),
            words="every connection goes on",
        )
        assert self.failures == []

    def _pump(self, number: int, sock: socket.socket) -> None:
        rng = random.Random(number)
        try:
            while not self._stopping.is_set():
                data = rng.randbytes(rng.randint(1, 20_000))
                sock.sendall(data)
                back = read_exactly(sock, len(data))
                if back != data:
                    self.failures.append(f"connection {number}: {len(back)} of {len(data)} bytes, or other ones")
                    return
                self._done[number] += 1
                self._stopping.wait(_PAUSE)
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1):
                self.failures.append(f"connection {number}: bytes behind the end")
        except OSError as exc:
            self.failures.append(f"connection {number}: {exc!r}")

    def finish(self) -> None:
        """End all connections in order. Raises AssertionError if there was a failure."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        for sock in self._socks:
            sock.close()
        assert self.failures == []


class Hammer:
    """Opens connections one after the other in a few threads. Each connection sends a word and receives it back.

    Attributes:
        done: the number of successful connections.
        failures: all failures so far.
    """

    def __init__(self, address: Callable[[], Address] | Address, threads: int = 3) -> None:
        self._address = address if callable(address) else (lambda: address)
        self._stopping = threading.Event()
        self.done = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with connect(self._address()) as sock:
                    sock.sendall(b"word")
                    back = read_exactly(sock, 4)
                    if back != b"word":
                        self.failures.append(f"{back!r} came back")
            except OSError as exc:
                self.failures.append(repr(exc))
            self.done += 1
            self._stopping.wait(_PAUSE)

    def go_on(self, count: int = 6) -> None:
        """Return when this number of further connections has succeeded."""
        goal = self.done + count
        wait_for(lambda: self.failures or self.done >= goal, words="new connections come through")
        assert self.failures == []

    def finish(self) -> None:
        """End the threads. Raises AssertionError if a connection has failed."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(TIMEOUT)
        assert self.failures == []
        assert self.done


@contextlib.contextmanager
def busy(address: Address, *, pumping: int = 10, hammer: int = 3) -> Iterator[tuple[Pumping, Hammer]]:
    """Run `Pumping` and `Hammer` during the block. At its end, neither may have a failure."""
    pumps, hammers = Pumping(address, pumping), Hammer(address, hammer)
    try:
        yield pumps, hammers
    finally:
        try:
            pumps.finish()
        finally:
            hammers.finish()
