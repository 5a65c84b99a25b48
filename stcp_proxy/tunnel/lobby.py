"""Accepted connections of a listen tunnel whose first message has not arrived completely, and those that wait for a handshake.

A stranger costs no task and no record here: a socket, a small object and an entry in an epoll set. Nothing is computed for it
before its whole first message is there. The bytes stay in the kernel; this module looks at them (MSG_PEEK).

Four stages, each with fair shares by source (`fair_places`):

    silent      no byte yet
    speaking    the beginning of a plausible first message
    suspect     a whole first message, from a host whose handshakes failed lately
    complete    a whole first message from another host: waits for its handshake

When places are short, they are taken in this order. A caller that begins with other bytes, or with a first message that was used
before (`replays`), is refused at once.

A handshake takes most of a millisecond, and the relays of this process wait meanwhile. So one handshake begins at a time. Before
the next one the relays have the loop for as long as it took, or until they have nothing to do. Networks take turns, and the
suspect wait until nobody else does. So a flood of forged first messages delays the hosts that it comes from.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import trio

from stcp_proxy.errors import HandshakeTimedOut, StcpError
from stcp_proxy.net.token_buckets import TokenBuckets
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.watcher import Watching
from stcp_proxy.tunnel.caller import Caller, Stage
from stcp_proxy.tunnel.fair_places import FairPlaces
from stcp_proxy.tunnel.lobby_watch import PAUSE, LobbyWatch
from stcp_proxy.tunnel.replays import Replays

GRACE: Final = 0.05
"""Seconds that a caller keeps its place, however short places are: longer than a round trip within a site."""
COMPLETE_GRACE: Final = 3.0
"""The same for a complete first message. So a burst of honest peers waits in the backlog, and nobody is refused."""
FAILURES: Final = 1.0
"""Failed handshakes a second with which a host is not suspect yet."""
FAILURES_BURST: Final = 5.0
"""Failed handshakes that a host may have at once."""
_EVENTS: Final = 64
"""Callers that are looked at before the relays get their turn."""
_IDLE: Final = 100e-6
"""A turn of Trio's loop that took fewer seconds had nothing to relay."""
_INTEREST: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP
_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)


_GRACES: Final = (GRACE, GRACE, GRACE, COMPLETE_GRACE)
"""By stage."""


class Host(Protocol):
    """What a lobby needs of its tunnel."""

    def entered(self) -> None:
        """Note that a caller has taken a place."""

    def left(self) -> None:
        """Note that a caller has left its place."""

    def may_begin(self) -> bool:
        """Whether a further handshake may begin now."""

    def begin(self, caller: Caller, connections: trio.Nursery) -> bool:
        """Start the session of a caller whose first message is complete; takes its socket. Returns whether a task runs it."""

    def refuse(self, caller: Caller, failure: StcpError) -> None:
        """Count and log a refused caller; its socket is closed afterwards."""

    def why_evicted(self) -> StcpError:
        """The failure of a caller whose place somebody else gets."""


class Lobby:
    """The lobby of one tunnel.

    Args:
        host: the tunnel.
        watching: gives the engine, where its loop may drive the lobby.

    Attributes:
        suites: suites that the tunnel accepts.
        timeout: seconds from accepting to a complete first message.
        replays: genuine first messages of late.
    """

    def __init__(self, host: Host, watching: Callable[[], Watching | None] = lambda: None) -> None:
        self.suites: tuple[Suite, ...] = ()
        self.timeout = 10.0
        self._host = host
        self._watching = watching
        self._callers: Final[dict[int, Caller]] = {}
        """By descriptor, the oldest first."""
        self._stages: Final = tuple(FairPlaces[int]() for _ in Stage)
        self._failures: Final = TokenBuckets(FAILURES, FAILURES_BURST)
        """Failed handshakes by source host."""
        self._in_order: Final = tuple(zip(Stage, self._stages, strict=True))
        self._seen_until = float("-inf")
        """When all that callers had said was last seen, on Trio's clock."""
        self._relays_until = float("-inf")
        """Before this time no handshake begins, unless the relays have nothing to do; on Trio's clock."""
        self._turn_at = float("-inf")
        """When the present turn of the relays began, on Trio's clock; infinitely long ago if none has begun."""
        self._began_at = 0.0
        """When the last handshake began, on Trio's clock."""
        self.replays: Final = Replays()
        self._epoll: select.epoll | None = None
        self._connections: trio.Nursery | None = None
        """The nursery of the task and of the sessions, while the task runs."""
        self._waiting: trio.CancelScope | None = None
        """The wait of the task for an event."""
        self._watch: LobbyWatch | None = None
        """The engine's loop, while it drives the lobby."""
        self._runs = False
        self._accepting = False

    def __len__(self) -> int:
        return len(self._callers)

    @property
    def in_engine(self) -> bool:
        """Whether the engine's loop drives the lobby, so that callers may be added there too."""
        return self._watch is not None

    def configure(self, suites: tuple[Suite, ...], timeout: float) -> None:
        """Use new settings from now on; see the attributes."""
        self.suites, self.timeout = suites, timeout
        self._wake()

    def add(self, sock: socket.socket, address: Any, connections: trio.Nursery) -> None:
        """Take an accepted socket, non-blocking; `connections` gets the lobby's task and the sessions."""
        self._start(connections)
        caller, descriptor = Caller(sock, address), sock.fileno()
        if self._watch is not None and isinstance(stage := self._stage_of(caller, ended=False), Stage):
            caller.stage = stage  # under load the whole first message has come already
        self._callers[descriptor] = caller
        self._stages[caller.stage].add(descriptor, caller.source)
        self._host.entered()
        if caller.stage < Stage.SUSPECT:
            assert self._epoll is not None  # noqa: S101
            self._epoll.register(descriptor, _INTEREST)
            caller.is_watched = True
        if self._watch is not None:
            self._watch.go_on()
        elif self._waiting is not None and len(self._callers) == 1:
            self._waiting.deadline = caller.since + self.timeout

    def _start(self, connections: trio.Nursery) -> None:
        if not self._runs:
            self._runs = True
            self._epoll, self._connections = select.epoll(), connections
            connections.start_soon(self._run)

    @contextlib.contextmanager
    def accepting(self, connections: trio.Nursery) -> Iterator[None]:
        """Keep the task while its tunnel accepts: otherwise it ends whenever the lobby is empty."""
        self._accepting = True
        self._start(connections)
        try:
            yield
        finally:
            self._accepting = False
            self._wake()

    def _wake(self) -> None:
        """Let the task look at its conditions again."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._watch is not None:
            self._watch.end()

    # -- places ------------------------------------------------------------------------------------------------------------

    def make_room(self) -> float:
        """Take the place of the caller that loses it first, and close its connection with a TCP RST.

        Returns:
            0 if there is a free place now; else seconds until a place can be taken, infinity where nobody is here.
        """
        soonest = float("inf")
        now = trio.current_time()
        for stage, places in self._in_order:
            while places:
                caller = self._callers[places.victim]
                due = caller.since + _GRACES[stage]
                if due > now:
                    soonest = min(soonest, due - now)
                    break
                if now > self._seen_until + GRACE and self._has_news(caller):
                    continue
                if caller.sock.fileno() >= 0:  # not refused for its news
                    self._evict(caller)
                return 0.0
        return soonest

    def _has_news(self, caller: Caller) -> bool:
        """Look at a caller whose bytes a busy process may not have seen. Returns whether it is at another stage now."""
        before = caller.stage
        if before < Stage.SUSPECT:
            self._look(caller, ended=False)
        return caller.stage is not before

    def _evict(self, caller: Caller) -> None:
        self._leave(caller)
        with contextlib.suppress(OSError):
            caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._host.refuse(caller, self._host.why_evicted())
        caller.sock.close()

    def blame(self, host: str) -> None:
        """Note a failed handshake of a source host."""
        self._failures.charge(host, trio.current_time(), debt=FAILURES_BURST)

    def dismiss(self, failure: StcpError) -> None:
        """Refuse every caller."""
        for caller in list(self._callers.values()):
            self._turn_away(caller, failure)

    def dismiss_silent(self, seconds: float, failure: StcpError) -> float:
        """Refuse the callers whose first message is not complete after `seconds`. Returns seconds until the next one is due."""
        for caller in list(self._callers.values()):
            due, now = caller.since + seconds, trio.current_time()
            if due > now:
                return due - now
            if caller.stage < Stage.SUSPECT:
                self._turn_away(caller, failure)
        return PAUSE if self._callers else float("inf")

    def _leave(self, caller: Caller) -> None:
        """Forget a caller. Closing its socket takes it out of the epoll set."""
        descriptor = caller.sock.fileno()
        del self._callers[descriptor]
        self._stages[caller.stage].discard(descriptor)
        self._host.left()
        if not self._callers and not self._accepting:
            self._wake()

    def _turn_away(self, caller: Caller, failure: StcpError) -> None:
        self._leave(caller)
        self._host.refuse(caller, failure)
        caller.sock.close()

    # -- the steps of whoever drives it ------------------------------------------------------------------------------------

    def look(self) -> None:
        """See `Steps.look`."""
        assert self._epoll is not None  # noqa: S101
        found = self._epoll.poll(0, _EVENTS)
        for descriptor, events in found:
            caller = self._callers.get(descriptor)
            if caller is not None:
                self._look(caller, ended=bool(events & _ENDED))
        if len(found) < _EVENTS:
            self._seen_until = trio.current_time()

    def expire(self) -> None:
        """See `Steps.expire`."""
        now = trio.current_time()
        while (caller := next(iter(self._callers.values()), None)) is not None and caller.since + self.timeout <= now:
            what = f"the peer did not authenticate within {self.timeout:g} s"
            if caller.stage >= Stage.SUSPECT:
                self._turn_away(caller, HandshakeTimedOut(f"{what}: this side was too busy for its handshake"))
            else:
                self._turn_away(caller, HandshakeTimedOut(f"{what}: its first message did not come"))

    @property
    def waits(self) -> bool:
        """See `Steps.waits`."""
        return bool(self._stages[Stage.COMPLETE].members or self._stages[Stage.SUSPECT].members)

    @property
    def may_begin(self) -> bool:
        """See `Steps.may_begin`."""
        return self.waits and self._host.may_begin()

    @property
    def relays_first(self) -> bool:
        """See `Steps.relays_first`: for as long as the last handshake took, unless they have nothing to do."""
        now = trio.current_time()
        began, self._turn_at = self._turn_at, now
        return now < self._relays_until and now - began >= _IDLE

    def begin_one(self) -> bool:
        """See `Steps.begin_one`."""
        assert self._begins is not None  # noqa: S101
        assert self._epoll is not None  # noqa: S101
        caller = self._callers[self._begins.take()]
        if caller.is_watched:
            self._epoll.unregister(caller.sock)
        self._leave(caller)
        self._began_at = trio.current_time()
        assert self._connections is not None  # noqa: S101
        return self._host.begin(caller, self._connections)

    def end_of_handshake(self) -> None:
        """See `Steps.end_of_handshake`."""
        self._turn_at = now = trio.current_time()
        self._relays_until = now + (now - self._began_at)

    @property
    def due(self) -> float:
        """See `Steps.due`."""
        oldest = next(iter(self._callers.values()), None)
        return float("inf") if oldest is None else oldest.since + self.timeout

    @property
    def _begins(self) -> FairPlaces[int] | None:
        """The stage whose callers may begin a handshake now; None where nobody waits for one."""
        return self._stages[Stage.COMPLETE] or self._stages[Stage.SUSPECT] or None

    # -- the task ----------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Drive the lobby: by the engine's loop where that is possible, else by this task."""
        assert self._epoll is not None  # noqa: S101
        try:
            while self._accepting or self._callers:
                engine = self._watching()
                if engine is not None:
                    self._watch = LobbyWatch(engine, self._epoll, self)
                    try:
                        if await self._watch.until_over():
                            continue
                    finally:
                        self._watch = None
                await self._take_turn()
        finally:
            self._runs = False
            for caller in list(self._callers.values()):  # the process stops
                self._leave(caller)
                caller.sock.close()
            self._epoll.close()
            self._epoll = self._connections = None

    async def _take_turn(self) -> None:
        self.look()
        self.expire()
        if not self.may_begin:
            await self._wait()
        elif self.relays_first:
            await trio.lowlevel.checkpoint()
        else:
            has_task = self.begin_one()
            for _ in range(2 if has_task else 1):  # the session computes in one of these turns, whichever task Trio runs first
                await trio.lowlevel.checkpoint()
            self.end_of_handshake()
            self._turn_at = float("-inf")

    async def _wait(self) -> None:
        """Return when a caller has said something, or a deadline is due."""
        assert self._epoll is not None  # noqa: S101
        with trio.CancelScope() as self._waiting:
            self._waiting.deadline = min(self.due, trio.current_time() + PAUSE) if self.waits else self.due
            if not (self._accepting or self._callers):
                self._waiting.cancel()
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        self._waiting = None

    def _look(self, caller: Caller, *, ended: bool) -> None:
        """See what a caller has said: move it to its stage, or refuse it."""
        found = self._stage_of(caller, ended=ended)
        if isinstance(found, Stage):
            self._move(caller, found)
        else:
            self._turn_away(caller, found)

    def _stage_of(self, caller: Caller, *, ended: bool) -> Stage | StcpError:
        """The stage of a caller by what it has said, or why it is refused."""
        found = caller.said(self.suites, self.replays, ended=ended)
        if found is Stage.COMPLETE and self._failures.is_empty(caller.source.host, trio.current_time()):
            return Stage.SUSPECT
        return found

    def _move(self, caller: Caller, stage: Stage) -> None:
        if caller.stage is not stage:
            descriptor = caller.sock.fileno()
            self._stages[caller.stage].discard(descriptor)
            self._stages[stage].add(descriptor, caller.source)
            caller.stage = stage
