"""One tunnel: its listening sockets, its limits, its live connections.

Accepting is its own nursery, apart from the connections, so that a stop can end the one and wait for the other. When a limit is
reached nothing is accepted: newcomers wait in the kernel's backlog. On a listen tunnel, whose callers are strangers until they
have proved themselves, the oldest stranger gives up its place after a second, whichever limit is reached, so that a few hundred
silent ones cannot shut the door.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import socket
import threading
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import OverLimit, StcpError, code_for
from stcp_proxy.handshake.trust import Trust, revoked
from stcp_proxy.net.address import describe_sockaddr
from stcp_proxy.net.listen import close_listeners, listening_on, open_listeners
from stcp_proxy.net.socket_options import tune_accepted, tune_listener
from stcp_proxy.net.unix_socket import change_mode
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.relay.engine import Engine, RelayEnd
from stcp_proxy.session import intercept
from stcp_proxy.session.connect import ConnectSession
from stcp_proxy.session.handover import stopping
from stcp_proxy.session.intercept import InterceptSession
from stcp_proxy.session.listen import ListenSession
from stcp_proxy.session.readiness import reach
from stcp_proxy.session.record import Connection, Totals
from stcp_proxy.session.services import Offers
from stcp_proxy.tunnel.unauthenticated import SILENCE, Unauthenticated
from stcp_proxy.upstream.health_check import HealthChecker, check_for
from stcp_proxy.upstream.routes import Router, Way
from stcp_proxy.upstream.targets import Targets

_log = structlog.get_logger("stcp_proxy.tunnel")

BACKLOG: Final = 4096
_BATCH: Final = 64
"""Connections accepted before the others get their turn."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_PAUSE: Final = 0.1


@dataclass(slots=True)
class _Opening:
    """A connection on its way to an engine.

    Attributes:
        scope: ends it.
        trust: the rule by which it is let in.
    """

    scope: trio.CancelScope
    trust: Trust


class Service:
    """A tunnel that serves.

    Args:
        plan: what it is to do.
        engine: carries its connections.
        ledger: where they are counted, with those of another service of the same tunnel; one of its own unless given.
    """

    def __init__(self, plan: TunnelPlan, engine: Engine, ledger: Ledger | None = None) -> None:
        self.plan = plan
        self.engine = engine
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._ends: collections.deque[tuple[Connection, RelayEnd]] = collections.deque()
        self._trust = Trust.of(plan.auth)
        self.targets = Targets.of(plan)
        self._offers = Offers(plan, self.targets)
        self._router = Router(plan) if plan.intercept is not None else None
        self._listeners: list[socket.socket] = []
        self._accepting: trio.CancelScope | None = None
        self._tending: trio.CancelScope | None = None
        self._connections: set[Connection] = set()
        self._opening: dict[Connection, _Opening] = {}
        """Connections on their way to an engine."""
        self._strangers: Final = Unauthenticated()
        self.ledger: Final = Ledger() if ledger is None else ledger
        self._stopping = False
        self._changed = trio.lowlevel.ParkingLot()

    # -- life --------------------------------------------------------------------------------------------------------------

    def open(self, listeners: list[socket.socket] | None = None) -> None:
        """Bind and listen.

        Args:
            listeners: listening sockets from elsewhere, in place of the plan's own address; owned by the service.

        Raises:
            StcpError: in a sentence, when it cannot.
        """
        if listeners is None:
            listeners = open_listeners(self.plan.bind, backlog=BACKLOG, mode=self.plan.bind_mode)
        self._listeners = listeners
        intercept.fit(self.plan, listeners)
        for listener in self._listeners:
            tune_listener(listener)
            _log.info(
                "listening",
                tunnel=self.plan.name,
                mode=self.plan.mode.value,
                address=describe_sockaddr(listener.family, listener.getsockname()),
                to=[*(["original"] if self.plan.hand_on.allow_targets is not None else []), *map(str, self.plan.to)],
                engine=self.engine.name,
            )

    def close(self) -> None:
        """Stop listening. Connections go on."""
        close_listeners(self._listeners)
        self._listeners = []

    async def reach(self) -> None:
        """Return when the far target, or that of every route, has answered; see `stcp_proxy.session.readiness`.

        Raises:
            StcpError: why it did not.
        """
        failures: list[StcpError] = []

        async def ask(way: Way) -> None:
            try:
                await reach(self.plan, way)
            except StcpError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            for way in self._ways:
                nursery.start_soon(ask, way)
        if failures:
            raise failures[0]

    @property
    def _ways(self) -> list[Way]:
        """Where its connections go, and by which keys."""
        if self._router is not None:
            return self._router.ways
        return [Way(self._trust, self.targets, Opening(service=self.plan.service))]

    def forget_pairs(self) -> None:
        """Somebody may have changed keys, here or there: each handshake is tried with the first pair first again."""
        for way in self._ways:
            way.trust.choice.forget()

    def replace(self, plan: TunnelPlan, engine: Engine) -> None:
        """Take connections by another plan from now on; those that are there keep the one they came by."""
        if plan.auth != self.plan.auth:
            self._trust = Trust.of(plan.auth)
        if plan.bind_mode != self.plan.bind_mode:
            change_mode(self._listeners, plan.bind_mode)
        targets = Targets.of(plan)
        targets.adopt(self.targets)
        offers = Offers(plan, targets)
        offers.adopt(self._offers)
        self._router = Router(plan, before=self._router) if plan.intercept is not None else None
        self.plan, self.engine, self.targets, self._offers = plan, engine, targets, offers
        self._changed.unpark_all()  # a limit may have grown
        if self._tending is not None:
            self._tending.cancel()

    async def _tend(self) -> None:
        """What the targets need beside connections, for those of each plan in turn."""
        while True:
            with trio.CancelScope() as self._tending:
                check = check_for(self.plan, self._trust)
                async with trio.open_nursery() as nursery:
                    for targets in (self.targets, *self._offers.targets.values()):
                        nursery.start_soon(HealthChecker(targets, check, self.plan.health).run)

    async def accept(self, connections: trio.Nursery) -> None:
        """Accept until cancelled, or until `release`; every connection becomes a task of `connections` until its handover."""
        try:
            with trio.CancelScope() as self._accepting:
                async with trio.open_nursery() as nursery:
                    for listener in self._listeners:
                        nursery.start_soon(self._accept_from, listener, connections)
                    nursery.start_soon(self._tend)
        finally:
            self._accepting = None
            self._changed.unpark_all()

    async def release(self) -> list[socket.socket]:
        """Stop accepting, and give up the listening sockets as they are: whoever waits in their backlogs goes on waiting."""
        if self._accepting is not None:
            self._accepting.cancel()
        while self._accepting is not None:
            await self._changed.park()
        listeners, self._listeners = self._listeners, []
        return listeners

    @property
    def listeners(self) -> list[socket.socket]:
        """Its listening sockets."""
        return list(self._listeners)

    @property
    def addresses(self) -> list[str]:
        """Where it listens; empty when it does not."""
        return listening_on(self._listeners)

    @property
    def behind(self) -> list[tuple[str, str, Targets]]:
        """Where its connections go, with the service or the route that leads there; both are empty for its own `to`."""
        if self._router is not None:
            return [("", match, targets) for match, targets in self._router.targets]
        return [("", "", self.targets), *((name, "", targets) for name, targets in self._offers.targets.items())]

    @property
    def connections(self) -> AbstractSet[Connection]:
        """Those that have not ended, for reading."""
        return self._connections

    @property
    def proving(self) -> int:
        """How many of them have not proved themselves."""
        return len(self._strangers)

    @property
    def totals(self) -> Totals:
        """What has been done so far."""
        return Totals.of(self.ledger)

    @property
    def open_connections(self) -> int:
        """Connections that have not ended."""
        return len(self._connections)

    async def wait_idle(self) -> None:
        """Return when no connection is left."""
        while self._connections:
            await self._changed.park()

    @property
    def unfinished(self) -> int:
        """Connections whose end now would cut somebody off: all but strangers."""
        return len(self._connections) - (len(self._strangers) if self.plan.mode is Mode.LISTEN else 0)

    async def turn_strangers_away(self) -> None:
        """While stopping: who has proved nothing gets a second of silence, not the whole deadline of a handshake."""
        self._stopping = True
        while self.plan.mode is Mode.LISTEN and self._strangers:
            left = self._strangers.patience
            if left <= 0:
                self._strangers.give_up_oldest()
            else:
                with trio.move_on_after(left):
                    await self._changed.park()

    def abort(self, why: StcpError) -> None:
        """End every connection: those that are relayed by RESET, those on their way to it by refusing them."""
        for connection in list(self._connections):
            self._cut(connection, why)

    def _cut(self, connection: Connection, why: StcpError) -> None:
        if connection.relay is not None:
            connection.relay.abort(code_for(why), "")
        elif (opening := self._opening.get(connection)) is not None:
            connection.cut = why
            opening.scope.cancel()

    # -- keys that have been taken out -----------------------------------------------------------------------------------------

    @property
    def trust(self) -> Trust:
        """The rule by which it lets connections in."""
        return self._trust

    def forsake(self, remains: Trust) -> None:
        """The tunnel has been removed: from now on, its connections are measured by what is left of its rule."""
        self._trust = remains

    def uncovered(self, before: Trust) -> list[Connection]:
        """Connections that came to be by another rule and that the present one does not cover.

        Those that have not proved themselves yet are looked at when they do.
        """
        return [
            connection
            for connection in self._connections
            if connection not in self._strangers and not self._covers(connection, before)
        ]

    def _covers(self, connection: Connection, before: Trust) -> bool:
        return connection.in_the_clear or self._trust.covers(before, own=connection.own, peer=connection.key)

    async def revoke(self, connections: list[Connection], before: Trust, grace: float) -> None:
        """End connections that the rule no longer covers.

        Args:
            connections: as `uncovered` gave them.
            before: the rule by which they came to be.
            grace: seconds until then; a key that has come back meanwhile is let be.
        """
        peers = sorted({connection.peer for connection in connections})
        event = "key revoked: its connections end"
        _log.warning(event, tunnel=self.plan.name, connections=len(connections), peers=peers, seconds_left=grace)
        await trio.sleep(grace)
        still = set(self.uncovered(before))
        for connection in connections:
            if connection in still:
                self._cut(connection, revoked())

    # -- accepting -----------------------------------------------------------------------------------------------------------

    async def _accept_from(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.fileno())
            await self._wait_for_room()  # only now: where nobody waits, nobody has to give up its place
            if not self._accept_some(listener, connections):
                await trio.sleep(_EXHAUSTED_PAUSE)

    def admit_waiting(self, listeners: list[socket.socket], connections: trio.Nursery) -> None:
        """Before these are closed: let in who has connected to them already, as far as there is room."""
        for listener in listeners:
            self._accept_some(listener, connections)

    def _accept_some(self, listener: socket.socket, connections: trio.Nursery) -> bool:
        """Accept a batch, as far as there is room. False when the system has no descriptor or memory for more."""
        family = listener.family
        for _ in range(_BATCH):
            if not self._has_room():
                break
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self.ledger.limits["descriptors"] += 1
                    self._say_exhausted(exc)
                    return False
                continue
            sock.setblocking(False)
            tune_accepted(sock, address)
            # Clients of a unix socket have no address, as a rule.
            self._admit(sock, describe_sockaddr(family, address) if address else "unix", connections)
        return True

    def _has_room(self) -> bool:
        return len(self._connections) < self.plan.max_connections and len(self._strangers) < self.plan.max_handshakes

    async def _wait_for_room(self) -> None:
        while not self._has_room():
            full = "max_handshakes" if len(self._strangers) >= self.plan.max_handshakes else "max_connections"
            self.ledger.limits[full] += 1
            _log.warning(
                "limit reached: new connections wait",
                tunnel=self.plan.name,
                limit=full,
                value=getattr(self.plan, full),
                remedy=f"raise {full} if this load is meant",
            )
            # The callers of a connect tunnel are this side's own applications, and keep their places.
            seconds = self._strangers.make_room() if self.plan.mode is Mode.LISTEN else float("inf")
            with trio.move_on_after(seconds):
                await self._changed.park()

    def _say_exhausted(self, exc: OSError) -> None:
        _log.error(
            "cannot accept: new connections wait",
            tunnel=self.plan.name,
            why=exc.strerror,
            remedy="raise the limit of open files (ulimit -n, LimitNOFILE) or lower max_connections",
        )

    # -- connections ---------------------------------------------------------------------------------------------------------

    def _admit(self, sock: socket.socket, client: str, connections: trio.Nursery) -> None:
        self.ledger.accepted += 1
        connection = Connection(self.plan.name, client, self)
        scope = trio.CancelScope()
        self._connections.add(connection)
        self._opening[connection] = _Opening(scope, self._trust)
        self._strangers.add(connection, scope, sock)
        connections.start_soon(self._serve, connection, sock, scope)

    async def _serve(self, connection: Connection, sock: socket.socket, scope: trio.CancelScope) -> None:
        """One connection up to its handover; nothing that happens here reaches another connection."""
        try:
            with scope:
                self._opening[connection].trust = self._trust  # the plan is read now, too
                await self._session(connection, sock).run()
                self.proved(connection)
                if connection.cut is not None:  # too late to stop it on its way
                    self._cut(connection, connection.cut)
                return
            if connection.cut is not None:
                raise connection.cut
            if self._stopping:
                raise stopping()
            raise OverLimit(
                f"no place left for a peer that has proved nothing for {SILENCE:g} s",
                remedy="raise max_handshakes or max_connections if it is honest",
            )
        except trio.Cancelled:
            connection.failed(stopping())
            raise
        except Exception as exc:
            connection.failed(exc)
        finally:
            self._opening.pop(connection, None)

    def _session(self, connection: Connection, sock: socket.socket) -> ListenSession | ConnectSession | InterceptSession:
        if self._router is not None:
            return InterceptSession(self.plan, self._router, self.engine, sock, connection, self)
        if self.plan.mode is Mode.LISTEN:
            return ListenSession(self.plan, self._trust, self._offers, self.engine, sock, connection, self)
        return ConnectSession(self.plan, self._trust, self.targets, self.engine, sock, connection)

    def heard(self, connection: Connection) -> None:
        """See `Gate.heard`."""
        self._strangers.heard(connection)

    def proved(self, connection: Connection) -> None:
        """See `Gate.proved`."""
        if self._strangers.forget(connection) and self._changed:
            self._changed.unpark_all()
        opening = self._opening.get(connection)
        if opening is not None and not self._covers(connection, opening.trust):
            self._cut(connection, revoked())

    def forget(self, connection: Connection) -> None:
        """See `Owner.forget`."""
        self._connections.discard(connection)
        self._strangers.forget(connection)
        if self._changed:  # an engine that Trio's loop drives may not wake a task itself
            self._token.run_sync_soon(self._changed.unpark_all, idempotent=True)

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        """See `Owner.settle`: in Trio's thread at once, unless the end comes before the handover is complete; from another
        thread, many ends are one wake-up."""
        if threading.get_ident() == self._thread and connection.relay is not None:
            connection.ended(end)
            return
        self._ends.append((connection, end))
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._say_ends, idempotent=True)

    def _say_ends(self) -> None:
        while self._ends:
            connection, end = self._ends.popleft()
            connection.ended(end)
