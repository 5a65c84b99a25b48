"""The user-space engine: one thread, one epoll set, two scratch buffers for all connections.

The thread is blocked in epoll_wait and wakes for readiness, not for connections: what costs is a system call for each chunk and
about a microsecond of cipher, and nothing is allocated for it. Trio is not involved between handover and end. A dedicated thread
was measured against a Trio task that waits for the epoll set: docs/ARCHITECTURE.md has the figures.

Other threads talk to it through `call`, which queues a function and wakes the thread by an eventfd.
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from stcp_proxy.protocol.frames import Scratch
from stcp_proxy.protocol.wire import MAX_PLAINTEXT
from stcp_proxy.relay.deadlines import Deadlines
from stcp_proxy.relay.duplex import INTEREST, Duplex
from stcp_proxy.relay.engine import Handover, RelayEnd

CHUNK: Final = 4 * MAX_PLAINTEXT
"""Bytes of one read of a plain leg: full frames, several of them, and small enough for the second-level cache."""
_MAX_EVENTS: Final = 512


class PumpEngine:
    """Carries connections in user space. See `stcp_proxy.relay.engine.Engine`."""

    name: Final = "python"

    def __init__(self, *, chunk: int = CHUNK) -> None:
        self.chunk: Final = chunk
        self.scratch: Final = Scratch(chunk)
        self.now = time.monotonic()
        """Time of the batch under way, seconds."""
        self.deadlines: Final[Deadlines[Duplex]] = Deadlines()
        self.again: Final[collections.deque[Duplex]] = collections.deque()
        """Connections that have more to do, in turn."""
        self._handlers: dict[int, tuple[Duplex, Callable[[int], None]]] = {}
        self._inbox: collections.deque[tuple[Duplex, Callable[[], None]]] = collections.deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False

    # -- from any thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the epoll set and start the thread. Raises OSError when the process is out of descriptors."""
        self._epoll = select.epoll()
        try:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            self._epoll.close()
            raise
        self._epoll.register(self._wake, select.EPOLLIN)
        if self._inbox:
            os.eventfd_write(self._wake, 1)
        self._thread = threading.Thread(target=self._run, name="stcp-pump", daemon=True)
        self._thread.start()

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Duplex:
        """Carry a connection until it ends; see `Engine.adopt`."""
        if len(handover.wire_bytes) > self.chunk:
            raise ValueError(f"a handover carries at most {self.chunk} bytes of the wire")
        duplex = Duplex(self, handover, on_end)
        if not self.call(duplex, lambda: self._begin(duplex)):
            duplex.drop()
        return duplex

    def call(self, duplex: Duplex, function: Callable[[], None]) -> bool:
        """Run `function` for `duplex` in the engine's thread, soon; False when the engine is closed and nothing runs any more."""
        with self._lock:
            if self._stopping:
                return False
            self._inbox.append((duplex, function))
            if self._thread is not None and len(self._inbox) == 1:
                os.eventfd_write(self._wake, 1)
            return True

    def close(self) -> None:
        """Give every leg a TCP RST, stop the thread, close everything. Idempotent."""
        with self._lock:
            already, self._stopping = self._stopping, True
            if self._thread is None or already:
                return
            os.eventfd_write(self._wake, 1)
        self._thread.join()

    # -- the engine's thread -----------------------------------------------------------------------------------------------

    def forget(self, leg: socket.socket) -> None:
        """A leg is about to be closed: no event of it is acted on any more."""
        self._handlers.pop(leg.fileno(), None)

    def _begin(self, duplex: Duplex) -> None:
        plain, wire = duplex.legs
        for leg, handler in ((plain, duplex.on_plain), (wire, duplex.on_wire)):
            self._handlers[leg.fileno()] = (duplex, handler)
            self._epoll.register(leg.fileno(), INTEREST)
        duplex.begin()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            with self._lock:
                self._stopping = True
            self._take_calls()  # what was adopted last ends like the rest
            for duplex in {entry[0] for entry in self._handlers.values()}:
                duplex.drop()
            self._epoll.close()
            os.close(self._wake)

    def _turn(self) -> None:
        """Wait for events, then give every connection that has some one step."""
        events = self._epoll.poll(self._timeout(), _MAX_EVENTS)
        self.now = time.monotonic()
        handlers = self._handlers
        for fd, mask in events:
            entry = handlers.get(fd)
            if entry is None:
                continue
            try:
                entry[1](mask)
            except Exception as exc:
                entry[0].fail(exc)
        for _ in range(len(self.again)):
            duplex = self.again.popleft()
            _guarded(duplex, duplex.step)
        if self._inbox:
            self._take_calls()
        if len(self.deadlines):
            for duplex in self.deadlines.expired(self.now):
                _guarded(duplex, duplex.on_deadline)

    def _timeout(self) -> float | None:
        if self.again:
            return 0
        due = self.deadlines.next()
        return None if due is None else max(0.0, due - time.monotonic())

    def _take_calls(self) -> None:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            calls = list(self._inbox)
            self._inbox.clear()
        for duplex, function in calls:
            _guarded(duplex, function)


def _guarded(duplex: Duplex, step: Callable[[], None]) -> None:
    """Run `step`; what it raises is a bug of ours that ends `duplex`, and no other connection."""
    try:
        step()
    except Exception as exc:
        duplex.fail(exc)
