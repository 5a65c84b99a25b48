"""The user-space engine: one epoll set and one pair of scratch buffers for all connections.

A chunk of bytes costs its system calls and the cipher, and allocates no memory. Trio runs no task for a connection between its
handover and its end.

One thread waits in the epoll set. `start` makes a thread for that. Other threads use `call`, which queues a function and wakes
that thread by an eventfd. In a process that runs Trio, `trio_loop` drives the engine from Trio's own thread instead. This saves
the switch between threads, and GIL contention.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from stcp_proxy.protocol.frames import Scratch
from stcp_proxy.protocol.wire import MAX_PLAINTEXT
from stcp_proxy.relay.connection import Connection
from stcp_proxy.relay.deadlines import Deadlines, Timed
from stcp_proxy.relay.duplex import INTEREST, Duplex
from stcp_proxy.relay.engine import Handover, RelayEnd
from stcp_proxy.relay.fast_path import GUEST, SEEN, Lane, make_lane
from stcp_proxy.relay.held_bytes import LIMIT, SHORT_READ, HeldBytes
from stcp_proxy.relay.turns import PAUSE, SHARED_READ, Begins, Small, SmallReads, Turns, are_active, guarded, poll_briefly
from stcp_proxy.relay.watcher import Watched, Watcher

CHUNK: Final = 16 * MAX_PLAINTEXT
"""Bytes of one read: sixteen full frames. Four cost a sixth more processor time in bulk, and helped no small connection."""
_MAX_EVENTS: Final = 128
_NEVER: Final = math.inf
LOOK_AFTER: Final = 5.0
"""Seconds between two searches for active connections, whose legs then get a look; well below any TCP_USER_TIMEOUT."""


class PumpEngine:
    """Carries connections in user space. See `stcp_proxy.relay.engine.Engine`.

    Args:
        chunk: most bytes of one read.
        held_limit: bytes held for stalled readers, in all connections, above which reads are short.
        compiled: whether to use the fast path in C. True requires it; None uses it if it was built.
    """

    name: Final = "python"
    keeps_legs: Final = True

    def __init__(self, *, chunk: int = CHUNK, held_limit: int = LIMIT, compiled: bool | None = None) -> None:
        self.chunk: Final = chunk
        self._held_size = chunk
        """Most bytes of one read: `chunk`, or fewer while much is held for stalled readers."""
        self._own_small: Final = SmallReads()
        self.held: Final = HeldBytes(held_limit)
        self.scratch: Final = Scratch(chunk)
        self.now = time.monotonic()
        """Time of the batch under way, seconds."""
        self.deadlines: Final[Deadlines[Timed]] = Deadlines()
        self.stalls: Final[Deadlines[Connection]] = Deadlines()
        """When to look at a connection with bytes that wait in a leg."""
        self._looked_at = 0.0
        self._look_at = _NEVER
        """When to search for active connections; never while none is active."""
        self.begins: Final = Begins()
        self._turns: Final = Turns()
        self.again: Final = self._turns.queue
        self._handlers: dict[int, Callable[[int], None]] = {}
        """By descriptor of a leg: `on_plain` or `on_wire` of its Duplex. By descriptor of another socket: `on_news`."""
        self._watchers: dict[int, Watcher] = {}
        """By descriptor of a socket that is no leg."""
        self.wake_trio: Callable[[], None] = _nothing
        """See `Watching.wake_trio`."""
        self._inbox: collections.deque[tuple[Connection, Callable[[], None]]] = collections.deque()
        self._lock = threading.Lock()
        self._own_thread: threading.Thread | None = None
        self.why_thread = ""
        """Why Trio's loop does not drive the engine; empty where it does."""
        self._owner: int | None = None
        """Identity of the thread that drives the engine; None before it is driven."""
        self._guest = -1
        self._compiled = compiled
        self.lane: Lane | None = None
        """The fast path in C, while the epoll set is open."""
        self._opened = False
        self._stopping = False

    # -- from any thread ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the epoll set and start a thread that drives the engine. Raises OSError when the process is out of descriptors."""
        self.open()
        self.start_thread()

    def start_driven(self, guest: int) -> None:
        """Open the epoll set. The calling thread has to drive the engine by `turn` or `run`.

        Args:
            guest: a further descriptor to watch; `turn` and `run` report when it is ready.

        Raises:
            OSError: the process is out of descriptors.
        """
        self.open()
        self._guest = guest
        self._epoll.register(guest, select.EPOLLIN)
        if self.lane is not None:
            self.lane.guest = guest
        self._owner = threading.get_ident()

    def start_thread(self) -> None:
        """Drive the open engine from a thread of its own from now on."""
        if self._guest >= 0:
            self._epoll.unregister(self._guest)
            self._guest = -1
            if self.lane is not None:
                self.lane.guest = -1
        self._owner = None
        self._lose_watchers()
        self._own_thread = threading.Thread(target=self._run, name="stcp-pump", daemon=True)
        self._own_thread.start()

    def open(self) -> None:
        """Open the epoll set, once. Raises OSError when the process is out of descriptors."""
        if self._opened:
            return
        self._epoll = select.epoll()
        try:
            self.lane = make_lane(self, self._epoll.fileno(), Duplex, wanted=self._compiled)
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except (OSError, ImportError):
            self._epoll.close()
            raise
        self._epoll.register(self._wake, select.EPOLLIN)
        self._opened = True
        if self._inbox:
            os.eventfd_write(self._wake, 1)

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Duplex:
        """Carry a connection until it ends; see `Engine.adopt`."""
        if len(handover.wire_bytes) > self.chunk:
            raise ValueError(f"a handover carries at most {self.chunk} bytes of the wire")
        duplex = Duplex(self, handover, on_end)
        if not self.call(duplex, lambda: self._begin(duplex)):
            duplex.drop()
        return duplex

    def call(self, duplex: Connection, function: Callable[[], None]) -> bool:
        """Run `function` for `duplex` in the engine's thread: now if the caller is in that thread, else soon.

        Returns:
            False when the engine is closed, and `function` will not run.
        """
        if self._owner == threading.get_ident() and not self._stopping:
            guarded(duplex, function)
            return True
        with self._lock:
            if self._stopping:
                return False
            self._inbox.append((duplex, function))
            if self._opened and len(self._inbox) == 1:
                os.eventfd_write(self._wake, 1)
            return True

    def close(self) -> None:
        """Send a TCP RST to every leg, stop the engine and close its descriptors. Idempotent."""
        with self._lock:
            already, self._stopping = self._stopping, True
            if not self._opened or already:
                return
            os.eventfd_write(self._wake, 1)
        if self._own_thread is None:
            self._shut()
        else:
            self._own_thread.join()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._stopping

    @property
    def opened(self) -> bool:
        """Whether it has been started, or will be in a moment."""
        return self._opened

    @property
    def has_thread(self) -> bool:
        """Whether the engine has a thread of its own."""
        return self._own_thread is not None

    # -- the engine's thread -----------------------------------------------------------------------------------------------

    def forget(self, leg: Watched) -> None:
        """Act on no further event of a leg that is about to be closed."""
        self._handlers.pop(leg.fileno(), None)
        if self.lane is not None:
            self.lane.forget(leg.fileno())

    def release(self, leg: Watched) -> None:
        """Watch a leg no more: it stays open, and another owner takes it."""
        self.forget(leg)
        self._epoll.unregister(leg.fileno())

    def watch(self, sock: Watched, watcher: Watcher, *, mask: int = select.EPOLLIN, seconds: float | None = None) -> bool:
        """See `Watching.watch`."""
        if self._guest < 0 or self._owner != threading.get_ident() or self._stopping:
            return False
        fd, on_news = sock.fileno(), watcher.on_news
        self._epoll.register(fd, mask)
        self._watchers[fd] = watcher
        self._handlers[fd] = on_news
        if self.lane is not None:
            self.lane.set(fd, -1, watcher, on_news, False)
        if seconds is not None:
            self.deadlines.set(watcher, self.now + seconds)
        return True

    def unwatch(self, sock: Watched, watcher: Watcher) -> None:
        """See `Watching.unwatch`."""
        fd = sock.fileno()
        if self._watchers.get(fd) is watcher:
            del self._watchers[fd]
            self.deadlines.discard(watcher)
            self.release(sock)

    def _lose_watchers(self) -> None:
        """Watch no socket that is no leg any more."""
        watchers, self._watchers = self._watchers, {}
        for fd, watcher in watchers.items():
            self._handlers.pop(fd, None)
            if self.lane is not None:
                self.lane.forget(fd)
            self.deadlines.discard(watcher)
            self._epoll.unregister(fd)
            guarded(watcher, watcher.on_lost)

    def hold(self, difference: int) -> None:
        """Count `difference` more bytes that a connection holds for a stalled reader; negative for fewer."""
        self.held.change(difference)
        read_size = SHORT_READ if self.held.crowded else self.chunk
        if read_size != self._held_size:
            self._held_size = read_size
            if self.lane is not None:
                self.lane.read_size = read_size

    @property
    def read_size(self) -> int:
        """Most bytes of one read at present."""
        return min(self._held_size, SHARED_READ) if are_active(self._small, self.now) else self._held_size

    def note_small(self) -> None:
        """Note that a small connection is active, as the fast path does."""
        self._own_small.note(self.now)

    @property
    def _small(self) -> Small:
        return self._own_small if self.lane is None else self.lane

    def _begin(self, duplex: Duplex) -> None:
        """Register both legs, and let the connection take its first step."""
        plain, wire = duplex.legs
        for leg, other, handler in ((plain, wire, duplex.on_plain), (wire, plain, duplex.on_wire)):
            self._handlers[leg.fileno()] = handler
            if self.lane is not None:
                self.lane.set(leg.fileno(), other.fileno(), duplex, handler, leg is wire)
            self._epoll.register(leg.fileno(), INTEREST)
        self._look_at = min(self._look_at, self.now + LOOK_AFTER)
        duplex.begin()

    def _run(self) -> None:
        self._owner = threading.get_ident()
        try:
            self.run(None)
        finally:
            self._shut()

    def _shut(self) -> None:
        with self._lock:
            self._stopping = True
        self._lose_watchers()
        self._take_calls()  # a connection that was adopted last must end too
        for duplex in self._carried():
            duplex.drop()
        self.lane = None
        self._epoll.close()
        os.close(self._wake)

    def turn(self, patience: float | None) -> bool:
        """Wait for events once, for at most `patience` seconds. Returns whether the guest descriptor is ready."""
        return self.run(patience, once=True)

    def run(self, patience: float | None, *, once: bool = False) -> bool:
        """Relay until the guest descriptor is ready or the time is over. In a turn, each connection with an event gets one step.

        Args:
            patience: seconds to relay; None is no limit.
            once: return after the first wait.

        Returns:
            Whether the guest descriptor is ready.
        """
        clock, lane = time.monotonic, self.lane
        until = None if patience is None else clock() + patience
        guest = False
        while not (guest or self._stopping):
            special = self.again or self.deadlines.waiting or self.stalls.waiting
            wait = patience
            if special:
                wait = self._timeout(patience)
            elif self._look_at != _NEVER:
                wait = max(0.0, self._look_at - self.now)
                if patience is not None and patience < wait:
                    wait = patience
            seen = self._serve(wait) if lane is None else lane.run(wait, once or self._look_at == _NEVER)
            now = self.now
            guest = bool(seen & GUEST)
            if special or self.again or self._inbox:
                self._after_events(bool(seen))
            if now >= self._look_at:
                self._look_around()
            elif seen and self._look_at == _NEVER:
                self._look_at = now + LOOK_AFTER
            if once:
                break
            if until is not None:
                patience = until - now
                if patience <= 0:
                    break
        return guest

    def _serve(self, wait: float | None) -> int:
        """Wait for events once and call their handlers. Returns GUEST and SEEN, as `Lane.run` does."""
        handler_of, seen = self._handlers.get, 0
        brief = wait is not None and 0 < wait <= PAUSE
        events = poll_briefly(self._epoll, wait or 0, _MAX_EVENTS) if brief else self._epoll.poll(wait, _MAX_EVENTS)
        self.now = time.monotonic()
        for fd, mask in events:
            seen |= SEEN
            handler = handler_of(fd)
            if handler is not None:
                try:
                    handler(mask)
                except Exception as exc:
                    handler.__self__.fail(exc)  # type: ignore[attr-defined]
            elif fd == self._guest:
                seen |= GUEST
        return seen

    def _after_events(self, seen: bool) -> None:
        """Run the work that no event of a leg announces: turns, calls from other threads, deadlines. `seen`: see `Turns.take`."""
        if self.again:
            self._turns.take(self._small, seen=seen)
        if self._inbox:
            self._take_calls()
        for timed in self.deadlines.expired(self.now):
            guarded(timed, timed.on_deadline)
        for duplex in self.stalls.expired(self.now):
            guarded(duplex, duplex.on_stall_check)

    def _look_around(self) -> None:
        """Schedule a look at each connection that was active since the last search. An idle connection costs nothing."""
        since, self._looked_at, self._look_at = self._looked_at, self.now, _NEVER
        for duplex in self._carried():
            duplex.watch_if_active(since)

    def _carried(self) -> set[Duplex]:
        owners = (getattr(handler, "__self__", None) for handler in self._handlers.values())
        return {each for each in owners if isinstance(each, Duplex)}

    def _timeout(self, patience: float | None) -> float | None:
        """Seconds to wait for events: until the next deadline, at most `patience`. None is no limit."""
        if self.again:
            pause = self._turns.pause(self._small)
            return pause if patience is None else min(pause, patience)
        deadline, stall = self.deadlines.next(), self.stalls.next()
        due = self._look_at if deadline is None else min(deadline, self._look_at)
        due = due if stall is None else min(stall, due)
        if due == _NEVER:
            return patience
        wait = max(0.0, due - time.monotonic())
        return wait if patience is None else min(wait, patience)

    def _take_calls(self) -> None:
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            calls = list(self._inbox)
            self._inbox.clear()
        for duplex, function in calls:
            guarded(duplex, function)


def _nothing() -> None:
    pass
