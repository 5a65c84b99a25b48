"""The wire legs of one tunnel between their connections (PROTOCOL.md section 7). Implements `Keeper` for the tunnel's sessions.

The engine's loop watches the legs at rest. Where it cannot, they have an epoll set of their own. So a leg that is taken and put
back costs a few system calls and no task. One task runs while there is a leg: it waits for the set, and closes legs whose time
is over.

    connect tunnel    a session takes a leg; any byte that arrives on a leg at rest ends it
    listen tunnel     OPEN arrives on a leg at rest, and `serve` starts the next session

Invariants:
- A leg of an earlier era is never kept. A changed plan, a removed key and a stop each begin a new era.
- After BYE, a listen tunnel reads until the peer has closed the leg. Otherwise TCP could send a reset that destroys BYE.
"""

from __future__ import annotations

import collections
import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.leg import State
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import MAX_KEEP, FrameType
from stcp_proxy.relay.watcher import Watching
from stcp_proxy.session.peer_leg import PeerLeg, now
from stcp_proxy.tunnel.descriptors import Descriptors
from stcp_proxy.tunnel.leg_watch import LegWatch

_log = structlog.get_logger("stcp_proxy.tunnel")

_LOOK: Final = 1.0
"""Seconds between two searches for legs whose time is over."""
_GRACE: Final = 1
"""Seconds that a listen tunnel keeps a leg longer than agreed, so that the connect tunnel, which uses it, ends it first."""
FAREWELL: Final = 1.0
"""Seconds for which a listen tunnel goes on reading after BYE."""
_READ: Final = 65536
MOST: Final = 1024
"""The largest number of legs at rest in one tunnel of one process."""

Serve = Callable[[PeerLeg, Opening, trio.Nursery], None]
"""Starts a session for an OPEN that arrived on a kept leg, as a task of the nursery. The session owns the leg."""


class IdleLegs:
    """Legs at rest.

    Args:
        plan: the tunnel.
        descriptors: the limit that all tunnels share.
        serve: starts the next session of a listen tunnel.
        has_room: whether the limits admit one more connection.
        watching: the engine, where sessions of the tunnel may begin without a task.

    Attributes:
        era: see `Keeper.era`.
        all_left: woken when the last leg on which BYE was sent is closed.
        removals: how many legs were taken or have ended so far.
        changed: woken after each removal.
    """

    def __init__(
        self,
        plan: TunnelPlan,
        descriptors: Descriptors,
        serve: Serve,
        has_room: Callable[[], bool],
        watching: Callable[[], Watching | None] = lambda: None,
    ) -> None:
        self.era: object = None
        self.all_left: Final = trio.lowlevel.ParkingLot()
        self.removals = 0
        self.changed: Final = trio.lowlevel.ParkingLot()
        self._plan = plan
        self._descriptors = descriptors
        descriptors.keepers.add(self)
        self._serve = serve
        self._has_room = has_room
        self._watching = watching
        self._legs: dict[int, PeerLeg] = {}
        """By descriptor; the leg that has been at rest for longest is first."""
        self._by_use: dict[object, list[PeerLeg]] = {}
        """The same legs by use; the leg that came to rest last is last."""
        self._until: dict[int, float] = {}
        """When the time of a leg is over, by `now`; legs on which BYE was sent are included."""
        self._leaving: dict[int, PeerLeg] = {}
        """Legs on which BYE was sent, by descriptor."""
        self._watches: dict[int, LegWatch] = {}
        """Legs at rest that the engine watches, by descriptor; `_epoll` watches the others."""
        self._arrived: collections.deque[PeerLeg] = collections.deque()
        """Legs from a different thread, which are not held yet."""
        self._unread: collections.deque[PeerLeg] = collections.deque()
        """Legs with bytes that the engine has already read: no event of the socket announces them."""
        self._connections: trio.Nursery | None = None
        self._epoll: select.epoll | None = None
        self._running = False
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def __len__(self) -> int:
        return len(self._legs)

    def waiting(self, use: object) -> int:
        """The number of legs at rest for one use."""
        return len(self._by_use.get(use, ()))

    def holds(self, leg: PeerLeg) -> bool:
        """Whether a leg is at rest here."""
        return leg in self._by_use.get(leg.use, ())

    # -- eras --------------------------------------------------------------------------------------------------------------

    def open(self, connections: trio.Nursery) -> None:
        """Keep legs from now on; the task that watches them belongs to `connections`."""
        self._connections = connections
        self.era = object()

    def replace(self, plan: TunnelPlan) -> None:
        """Use a new plan from now on. Legs that were made before are closed."""
        self._plan = plan
        if self.era is not None:
            self.era = object()
        self._leave_all()

    def retire(self) -> None:
        """Keep no leg any more."""
        self.era = None
        self._leave_all()

    def _leave_all(self) -> None:
        for leg in list(self._legs.values()):
            self._leave(leg)

    async def wait_all_left(self) -> None:
        """Return when every leg on which BYE was sent is closed: by its peer, or because the time for that is over."""
        while self._leaving:
            await self.all_left.park()

    # -- calls from sessions -----------------------------------------------------------------------------------------------

    def offer(self, made: float) -> int | None:
        """See `Keeper.offer`."""
        keep = self._plan.keep
        if keep is None or self.era is None:
            return None
        seconds = int(min(keep.idle, made + keep.max_age - now(), MAX_KEEP))
        return seconds if seconds > 0 else None

    def take(self, use: object) -> PeerLeg | None:
        """See `Keeper.take`."""
        same = self._by_use.get(use)
        while same:
            leg = same[-1]
            over = self._until[leg.stream.socket.fileno()] <= now()
            self._remove(leg)
            if not (over or leg.channel.rest or leg.stream.has_news):
                return leg
            leg.stream.close()
        return None

    def put(self, leg: PeerLeg) -> None:
        """See `Keeper.put`."""
        if threading.get_ident() == self._thread:
            self._put(leg)
        else:
            self._arrived.append(leg)
            self._take_soon()

    def lost(self, leg: PeerLeg) -> None:
        """See `Keeper.lost`."""
        for other in list(self._by_use.get(leg.use, ())):
            if other.at_rest <= leg.at_rest:
                self._remove(other)
                other.stream.close()

    def give_way(self) -> bool:
        """Close the leg that has been at rest for longest. Returns whether there was one."""
        for leg in self._legs.values():
            self._leave(leg)
            return True
        return False

    # -- legs --------------------------------------------------------------------------------------------------------------

    def _take_soon(self) -> None:
        """Let Trio handle the legs that have arrived. An engine that runs in Trio's loop may not start a task itself."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._take_arrived, idempotent=True)

    def _take_arrived(self) -> None:
        while self._arrived:
            self._put(self._arrived.popleft())
        while self._unread:
            leg = self._unread.popleft()
            if self._legs.get(leg.stream.socket.fileno()) is leg:
                self.read(leg)

    def _put(self, leg: PeerLeg) -> None:
        keep, agreed = self._plan.keep, leg.channel.leg.keep
        if keep is None or agreed is None or leg.era is not self.era or leg.channel.leg.state is not State.IDLE:
            self._leave(leg)
            return
        until = min(leg.at_rest + agreed, leg.made + keep.max_age)  # its connection may have lasted for longer than max_age
        if until <= now():
            self._leave(leg)
            return
        same = self._by_use.get(leg.use)
        if same is not None and len(same) >= keep.legs:
            self._leave(same[0])
        if len(self._legs) >= MOST or self._descriptors.legs >= self._descriptors.most_legs:
            self.give_way()
        fd = leg.stream.socket.fileno()
        self._legs[fd] = leg
        self._by_use.setdefault(leg.use, []).append(leg)
        self._descriptors.legs += 1
        self._watch(fd, until + (_GRACE if self._plan.mode is Mode.LISTEN else 0), leg)
        if leg.channel.rest:
            self._unread.append(leg)
            self._take_soon()

    def _watch(self, fd: int, until: float, at_rest: PeerLeg | None = None) -> None:
        """Watch a leg until its time is over; `at_rest` is None after BYE."""
        self._until[fd] = until
        if self._epoll is None:
            self._epoll = select.epoll()
        engine = None if at_rest is None else self._watching()
        if at_rest is not None and engine is not None:
            watch = LegWatch(engine, at_rest, self)
            if engine.watch(at_rest.stream.socket, watch):
                self._watches[fd] = watch
        if fd not in self._watches:
            self._epoll.register(fd, select.EPOLLIN)
        if not self._running:
            self._running = True
            self._token.run_sync_soon(self._start)

    def _start(self) -> None:
        assert self._connections is not None  # noqa: S101
        try:
            self._connections.start_soon(self._run)
        except RuntimeError:  # a stop has closed the nursery
            self._close()

    def _remove(self, leg: PeerLeg) -> None:
        """Stop holding a leg. It stays open."""
        fd = leg.stream.socket.fileno()
        if self._legs.pop(fd, None) is None:
            return
        same = self._by_use[leg.use]
        same.remove(leg)
        if not same:
            del self._by_use[leg.use]
        self._forget(fd)
        self._descriptors.legs -= 1
        self.removals += 1
        if self.changed:  # an engine that runs in Trio's loop may not wake a task itself
            self._token.run_sync_soon(self.changed.unpark_all, idempotent=True)

    def _forget(self, fd: int) -> None:
        del self._until[fd]
        watch = self._watches.pop(fd, None)
        if watch is not None:
            watch.end()
        elif self._epoll is not None:
            self._epoll.unregister(fd)

    def watch_lost(self, leg: PeerLeg) -> None:
        """See `LegHolder.watch_lost`."""
        fd = leg.stream.socket.fileno()
        if self._watches.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.register(fd, select.EPOLLIN)

    def drop(self, leg: PeerLeg) -> None:
        """See `LegHolder.drop`."""
        self._remove(leg)
        leg.stream.close()

    def _leave(self, leg: PeerLeg) -> None:
        """Send BYE and close a leg. A listen tunnel goes on reading for a moment before it closes the leg."""
        self._remove(leg)
        leg.leave(FrameType.BYE)
        if self._plan.mode is Mode.CONNECT or leg.channel.leg.state is not State.LEFT:
            leg.stream.close()
            return
        with contextlib.suppress(OSError):
            leg.stream.socket.shutdown(socket.SHUT_WR)
        fd = leg.stream.socket.fileno()
        self._leaving[fd] = leg
        self._watch(fd, now() + FAREWELL)

    # -- the task ----------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Watch the legs until none is left."""
        try:
            while self._until and self._epoll is not None:
                with trio.move_on_after(_LOOK):
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, _ in self._epoll.poll(0):
                    if fd in self._leaving:
                        self._discard(self._leaving[fd])
                    elif fd in self._legs:
                        self.read(self._legs[fd])
                self._look()
        finally:
            self._close()

    def _close(self) -> None:
        """Close all legs and the epoll set, because the task that watches them has ended."""
        for leg in [*self._legs.values(), *self._leaving.values()]:
            self._remove(leg)
            leg.stream.close()
        self._leaving.clear()
        self._until.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._running = False
        self.all_left.unpark_all()

    def _look(self) -> None:
        """Close the legs whose time is over."""
        time = now()
        for fd in [fd for fd, until in self._until.items() if until <= time]:
            if fd in self._leaving:
                self._left(fd)
            else:
                self._leave(self._legs[fd])

    def _discard(self, leg: PeerLeg) -> None:
        """Discard bytes that arrive after this side's BYE, until the peer closes the leg."""
        try:
            if leg.stream.socket.recv(_READ):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._left(leg.stream.socket.fileno())

    def _left(self, fd: int) -> None:
        leg = self._leaving.pop(fd)
        self._forget(fd)
        leg.stream.close()
        if not self._leaving:
            self.all_left.unpark_all()

    # -- arriving frames ---------------------------------------------------------------------------------------------------

    def read(self, leg: PeerLeg) -> None:
        """See `LegHolder.read`."""
        if self._plan.mode is Mode.LISTEN and not self._has_room():
            self._leave(leg)  # the peer opens the connection on a new leg, which waits for a place
            return
        try:
            opening = self._read_opening(leg)
        except BlockingIOError:
            return  # OPEN has come in part
        except FrameError as exc:
            _log.warning("kept wire leg closed", tunnel=self._plan.name, client=leg.name, why=exc.what, remedy=exc.remedy)
            opening = None
        except OSError:
            opening = None
        self._remove(leg)
        if opening is None or self._plan.mode is Mode.CONNECT:
            leg.stream.close()
        else:
            assert self._connections is not None  # noqa: S101
            self._serve(leg, opening, self._connections)

    def _read_opening(self, leg: PeerLeg) -> Opening | None:
        """The OPEN that has arrived; None where the peer ends the leg.

        Raises:
            BlockingIOError: the frame is incomplete.
            FrameError: the frame is invalid, or of a kind that may not come here.
            OSError: the leg is broken.
        """
        channel = leg.channel
        frame = channel.next_frame()
        while frame is None:
            data = leg.stream.socket.recv(_READ)
            if not data:
                return None
            channel.rest += data
            frame = channel.next_frame()
        return channel.leg.opening if frame[0] is FrameType.OPEN else None
