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
import enum
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Iterator
from typing import Any, Final, Protocol

import trio

from stcp_proxy.errors import ConnectCheck, HandshakeClosed, HandshakeTimedOut, MessageReplayed, StcpError
from stcp_proxy.net.source import Source, source_of
from stcp_proxy.net.token_buckets import TokenBuckets
from stcp_proxy.protocol.prologue import first_message_size
from stcp_proxy.protocol.wire import KEY_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN, Suite
from stcp_proxy.tunnel.fair_places import FairPlaces
from stcp_proxy.tunnel.replays import Replays

GRACE: Final = 0.05
"""Seconds that a caller keeps its place, however short places are: longer than a round trip within a site."""
COMPLETE_GRACE: Final = 3.0
"""The same for a complete first message. So a burst of honest peers waits in the backlog, and nobody is refused."""
FAILURES: Final = 1.0
"""Failed handshakes a second with which a host is not suspect yet."""
FAILURES_BURST: Final = 5.0
"""Failed handshakes that a host may have at once."""
_PEEK: Final = 64
"""Bytes that are looked at: enough for the prologue, the length field, the ephemeral key, and the name of another protocol."""
_EPHEMERAL: Final = slice(PROLOGUE_LEN + MESSAGE_LENGTH_LEN, PROLOGUE_LEN + MESSAGE_LENGTH_LEN + KEY_LEN)
"""The place of the ephemeral key: `e` is the first token of every pattern."""
_EVENTS: Final = 64
"""Callers that are looked at before the relays get their turn."""
_IDLE: Final = 100e-6
"""A turn of Trio's loop that took fewer seconds had nothing to relay."""
_PAUSE: Final = 0.02
"""Seconds until the next look, while no further handshake may begin."""
_INTEREST: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_ENDED: Final = select.EPOLLRDHUP | select.EPOLLHUP
_COUNT: Final = struct.Struct("i")
_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Stage(enum.IntEnum):
    """How much a caller has said; a lower stage loses its place first."""

    SILENT = 0
    SPEAKING = 1
    SUSPECT = 2
    COMPLETE = 3


_GRACES: Final = (GRACE, GRACE, GRACE, COMPLETE_GRACE)
"""By stage."""


class Caller:
    """An accepted connection in the lobby.

    Attributes:
        sock: the socket; owned by the lobby until its session begins.
        address: the socket address of the other end, as `accept` gave it.
        source: its source.
        since: when it was accepted, on Trio's clock.
        stage: how much it has said.
        ephemeral: the ephemeral key of its first message, 32 bytes; fewer before these have arrived.
    """

    __slots__ = ("address", "ephemeral", "since", "sock", "source", "stage")

    def __init__(self, sock: socket.socket, address: Any) -> None:
        self.sock = sock
        self.address = address
        self.source: Source = source_of(address)
        self.since = trio.current_time()
        self.stage = Stage.SILENT
        self.ephemeral = b""


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

    Attributes:
        suites: suites that the tunnel accepts.
        timeout: seconds from accepting to a complete first message.
        replays: genuine first messages of late.
    """

    def __init__(self, host: Host) -> None:
        self.suites: tuple[Suite, ...] = ()
        self.timeout = 10.0
        self._host = host
        self._callers: Final[dict[int, Caller]] = {}
        """By descriptor, the oldest first."""
        self._stages: Final = tuple(FairPlaces[int]() for _ in Stage)
        self._failures: Final = TokenBuckets(FAILURES, FAILURES_BURST)
        """Failed handshakes by source host."""
        self._in_order: Final = tuple(zip(Stage, self._stages, strict=True))
        self._seen_until = float("-inf")
        """When the task last saw all that callers had said, on Trio's clock."""
        self._relays_until = float("-inf")
        """Before this time no handshake begins, unless the relays have nothing to do; on Trio's clock."""
        self.replays: Final = Replays()
        self._epoll: select.epoll | None = None
        self._waiting: trio.CancelScope | None = None
        """The wait of the task for an event."""
        self._runs = False
        self._accepting = False

    def __len__(self) -> int:
        return len(self._callers)

    def add(self, sock: socket.socket, address: Any, connections: trio.Nursery) -> None:
        """Take an accepted socket, non-blocking; `connections` gets the lobby's task and the sessions."""
        if not self._runs:
            self._runs = True
            self._epoll = select.epoll()
            connections.start_soon(self._run, connections)
        caller, descriptor = Caller(sock, address), sock.fileno()
        self._callers[descriptor] = caller
        self._stages[Stage.SILENT].add(descriptor, caller.source)
        assert self._epoll is not None  # noqa: S101
        self._epoll.register(descriptor, _INTEREST)
        self._host.entered()
        if self._waiting is not None and len(self._callers) == 1:
            self._waiting.deadline = caller.since + self.timeout

    @contextlib.contextmanager
    def accepting(self) -> Iterator[None]:
        """Keep the task while its tunnel accepts: otherwise it ends whenever the lobby is empty."""
        self._accepting = True
        try:
            yield
        finally:
            self._accepting = False
            if self._waiting is not None:
                self._waiting.cancel()

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
        return _PAUSE if self._callers else float("inf")

    def _leave(self, caller: Caller) -> None:
        """Forget a caller. Closing its socket takes it out of the epoll set."""
        descriptor = caller.sock.fileno()
        del self._callers[descriptor]
        self._stages[caller.stage].discard(descriptor)
        self._host.left()
        if not self._callers and not self._accepting and self._waiting is not None:
            self._waiting.cancel()

    def _turn_away(self, caller: Caller, failure: StcpError) -> None:
        self._leave(caller)
        self._host.refuse(caller, failure)
        caller.sock.close()

    # -- the task ----------------------------------------------------------------------------------------------------------

    async def _run(self, connections: trio.Nursery) -> None:
        assert self._epoll is not None  # noqa: S101
        try:
            while self._accepting or self._callers:
                found = self._epoll.poll(0, _EVENTS)
                for descriptor, events in found:
                    caller = self._callers.get(descriptor)
                    if caller is not None:
                        self._look(caller, ended=bool(events & _ENDED))
                if len(found) < _EVENTS:
                    self._seen_until = trio.current_time()
                self._expire()
                if (places := self._begins) is not None and self._host.may_begin():
                    if trio.current_time() < self._relays_until:
                        await self._let_relays_go_on()
                    else:
                        await self._begin_one(places, connections)
                else:
                    await self._wait()
        finally:
            self._runs = False
            for caller in list(self._callers.values()):  # the process stops
                self._leave(caller)
                caller.sock.close()
            self._epoll.close()
            self._epoll = None

    @property
    def _begins(self) -> FairPlaces[int] | None:
        """The stage whose callers may begin a handshake now; None where nobody waits for one."""
        return self._stages[Stage.COMPLETE] or self._stages[Stage.SUSPECT] or None

    async def _wait(self) -> None:
        """Return when a caller has said something, or a deadline is due."""
        assert self._epoll is not None  # noqa: S101
        oldest = next(iter(self._callers.values()), None)
        with trio.CancelScope() as self._waiting:
            if oldest is not None:
                self._waiting.deadline = oldest.since + self.timeout
            if self._begins:
                self._waiting.deadline = min(self._waiting.deadline, trio.current_time() + _PAUSE)
            if not (self._accepting or self._callers):
                self._waiting.cancel()
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        self._waiting = None

    def _look(self, caller: Caller, *, ended: bool) -> None:
        """See what a caller has said: move it to its stage, or refuse it."""
        try:
            head = caller.sock.recv(_PEEK, socket.MSG_PEEK)
            size = first_message_size(head, self.suites) if head else None
            caller.ephemeral = head[_EPHEMERAL]
            if len(caller.ephemeral) == KEY_LEN and self.replays.has(caller.ephemeral):
                raise MessageReplayed("the first message has been used before")
        except BlockingIOError:
            return
        except OSError:
            head, size = b"", None
        except StcpError as exc:
            self._turn_away(caller, exc)
            return
        if not head:
            self._turn_away(caller, _closed(caller.stage))
        elif size is not None and _waiting_bytes(caller.sock) >= size:
            is_suspect = self._failures.is_empty(caller.source.host, trio.current_time())
            self._move(caller, Stage.SUSPECT if is_suspect else Stage.COMPLETE)
        elif ended:
            self._turn_away(caller, _closed(Stage.SPEAKING))
        elif caller.stage is Stage.SILENT:
            self._move(caller, Stage.SPEAKING)

    def _move(self, caller: Caller, stage: Stage) -> None:
        if caller.stage is not stage:
            descriptor = caller.sock.fileno()
            self._stages[caller.stage].discard(descriptor)
            self._stages[stage].add(descriptor, caller.source)
            caller.stage = stage

    def _expire(self) -> None:
        """Refuse the callers whose time is over."""
        due = trio.current_time() - self.timeout
        while (caller := next(iter(self._callers.values()), None)) is not None and caller.since <= due:
            what = f"the peer did not authenticate within {self.timeout:g} s"
            if caller.stage >= Stage.SUSPECT:
                self._turn_away(caller, HandshakeTimedOut(f"{what}: this side was too busy for its handshake"))
            else:
                self._turn_away(caller, HandshakeTimedOut(f"{what}: its first message did not come"))

    async def _begin_one(self, places: FairPlaces[int], connections: trio.Nursery) -> None:
        """Do the handshake of the caller whose turn it is, up to this side's answer."""
        caller = self._callers[places.take()]
        assert self._epoll is not None  # noqa: S101
        self._epoll.unregister(caller.sock)
        self._leave(caller)
        began = trio.current_time()
        has_task = self._host.begin(caller, connections)
        for _ in range(2 if has_task else 1):  # the session computes in one of these turns, whichever task Trio runs first
            await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self._relays_until = now + (now - began)

    async def _let_relays_go_on(self) -> None:
        """Return when the relays have had the loop for as long as the last handshake took, or have nothing to do."""
        now = trio.current_time()
        while now < self._relays_until:
            before = now
            await trio.lowlevel.checkpoint()
            now = trio.current_time()
            if now - before < _IDLE:
                break
        self._relays_until = float("-inf")


def _closed(stage: Stage) -> StcpError:
    """The failure of a caller that closed its connection."""
    if stage is Stage.SILENT:
        return ConnectCheck("the connection was closed before its first byte")
    return HandshakeClosed("the peer closed the connection during the handshake")


def _waiting_bytes(sock: socket.socket) -> int:
    """The number of bytes that have arrived and were not read (FIONREAD)."""
    return int(_COUNT.unpack(fcntl.ioctl(sock, termios.FIONREAD, bytes(_COUNT.size)))[0])
