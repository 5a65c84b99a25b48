"""One tunnel while it serves: it accepts connections and runs a session for each until an engine takes it over.

Accepting has its own nursery, apart from the connections, so that a stop can end the one and wait for the other.
"""

from __future__ import annotations

import socket
from collections.abc import Set as AbstractSet
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.config.exposure import Exposure, exposures
from stcp_proxy.counters import Ledger
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.first_steps import in_trio_task
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.kernel import KernelEngine
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.relay.watcher import Watching
from stcp_proxy.session.connect import ConnectSession
from stcp_proxy.session.intercept import InterceptSession
from stcp_proxy.session.listen import ListenSession
from stcp_proxy.session.peer_leg import PeerLeg
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.acceptor import Acceptor
from stcp_proxy.tunnel.connections import LiveConnections, MakeSession, Session
from stcp_proxy.tunnel.descriptors import Descriptors
from stcp_proxy.tunnel.idle_legs import IdleLegs
from stcp_proxy.tunnel.quick_start import QuickStart
from stcp_proxy.tunnel.ready_legs import ReadyLegs
from stcp_proxy.tunnel.revocation import end_expired
from stcp_proxy.tunnel.upstreams import Upstreams
from stcp_proxy.upstream.targets import Targets

_log = structlog.get_logger("stcp_proxy.tunnel")


class Tunnel:
    """A tunnel that serves.

    Args:
        plan: what the file configures.
        engine: carries its connections.
        ledger: where they are counted, together with those of an earlier tunnel of the same name; a new one by default.
        descriptors: the limit that it shares with the other tunnels of the process; none by default.

    Attributes:
        plan: the plan in force.
        engine: the engine for new connections.
        ledger: its counters.
        live: its connections.
        legs: its wire legs between their connections.
        upstreams: what lies behind it.
    """

    def __init__(
        self, plan: TunnelPlan, engine: Engine, ledger: Ledger | None = None, descriptors: Descriptors | None = None
    ) -> None:
        self.plan = plan
        self.engine = engine
        self.ledger: Final = Ledger() if ledger is None else ledger
        trust = Trust.of(plan.auth)
        self.live: Final = LiveConnections(plan.mode, trust, self.ledger, descriptors)
        self.upstreams = Upstreams(plan, trust)
        self.legs: Final = IdleLegs(plan, self.live.descriptors, self._admit_kept, self._has_room, lambda: self._watching)
        self._acceptor: Final = Acceptor(plan, self.live, self._admit, lambda: self._watching)
        self._accepting: trio.CancelScope | None = None
        self._following_plan: trio.CancelScope | None = None

    # -- listening ---------------------------------------------------------------------------------------------------------

    def open(self, listeners: list[socket.socket] | None = None) -> None:
        """Bind and listen.

        Args:
            listeners: listening sockets in place of the plan's own address, now owned by the tunnel; None to bind.

        Raises:
            StcpError: it cannot listen.
        """
        self._acceptor.open(listeners)
        for address in self._acceptor.addresses:
            _log.info(
                "listening",
                tunnel=self.plan.name,
                mode=self.plan.mode.value,
                address=address,
                to=[*(["original"] if self.plan.hand_on.allow_targets is not None else []), *map(str, self.plan.to)],
                engine=self.engine.name,
            )
        self._warn(exposures(self.plan))

    def _warn(self, found: list[Exposure]) -> None:
        for each in found:
            _log.warning(
                "plain leg open to the network", tunnel=self.plan.name, why=each.why, remedy=each.remedy, address=each.address
            )

    def close(self) -> None:
        """Stop listening. Connections go on."""
        self._acceptor.close()

    async def accept(self, connections: trio.Nursery) -> None:
        """Accept until cancelled, or until `release`; every connection becomes a task of `connections` until its handover."""
        self.legs.open(connections)
        try:
            with trio.CancelScope() as self._accepting:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._acceptor.run, connections)
                    nursery.start_soon(self._follow_plan)
        finally:
            self._accepting = None
            self.legs.retire()
            self.live.wake()

    async def _follow_plan(self) -> None:
        """Run health checks, end expired connections, make legs ahead: by the plan in force, and by each that replaces it."""
        while True:
            with trio.CancelScope() as self._following_plan:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.upstreams.check_health)
                    nursery.start_soon(end_expired, self.plan, self.live)
                    if self.plan.keep is not None and self.plan.keep.ready and self.engine.keeps_legs:
                        ready = ReadyLegs(self.plan, self.live.trust, self.upstreams.targets, self.legs, self.ledger)
                        nursery.start_soon(ready.run, self.plan.keep)

    async def drain(self) -> None:
        """Return when no connection is left. Meanwhile those end whose certificate expires, where the plan says so."""
        if not len(self.live):
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_expired, self.plan, self.live)
            await self.live.wait_idle()
            nursery.cancel_scope.cancel()

    def accept_waiting(self, listeners: list[socket.socket], connections: trio.Nursery) -> None:
        """Accept what waits at sockets that are about to be closed, as far as the limits allow."""
        self._acceptor.accept_waiting(listeners, connections)

    async def release(self) -> list[socket.socket]:
        """Stop accepting and hand over the listening sockets: connections in their backlogs go on waiting."""
        if self._accepting is not None:
            self._accepting.cancel()
        while self._accepting is not None:
            await self.live.changed.park()
        return self._acceptor.give_up()

    @property
    def listeners(self) -> list[socket.socket]:
        """Its listening sockets."""
        return list(self._acceptor.listeners)

    @property
    def addresses(self) -> list[str]:
        """The addresses at which it listens; empty when it does not."""
        return self._acceptor.addresses

    @property
    def lost(self) -> list[str]:
        """The addresses of unix sockets whose file was removed or replaced."""
        return self._acceptor.lost

    # -- the plan ----------------------------------------------------------------------------------------------------------

    def replace(self, plan: TunnelPlan, engine: Engine) -> None:
        """Admit connections by another plan from now on. Live connections keep the plan that admitted them."""
        if plan.auth != self.plan.auth:
            self.live.trust = Trust.of(plan.auth)
        self.upstreams = Upstreams(plan, self.live.trust, self.upstreams)
        known = exposures(self.plan)
        self.plan, self.engine = plan, engine
        self._acceptor.replace(plan)
        self.legs.replace(plan)
        self._warn([each for each in exposures(plan) if each not in known])
        if self._following_plan is not None:
            self._following_plan.cancel()

    # -- connections -------------------------------------------------------------------------------------------------------

    @property
    def _watching(self) -> Watching | None:
        """The engine, where sessions of this tunnel may begin without a task."""
        plan, engine = self.plan, self.engine
        if plan.intercept is not None or plan.accept_proxy is not None:
            return None
        if isinstance(engine, KernelEngine):
            return engine.fallback
        return engine if isinstance(engine, PumpEngine) else None

    def _admit(self, sock: socket.socket, client: str, connections: trio.Nursery, waited: float, ephemeral: bytes) -> bool:
        connection = Connection(self.plan.name, client, self.live, waited=waited, ephemeral=ephemeral)
        return self._start(connection, sock, connections, self._session)

    def _start(
        self,
        connection: Connection,
        sock: socket.socket,
        connections: trio.Nursery,
        make: MakeSession,
        *,
        proved_before: bool = False,
    ) -> bool:
        """Start a session: without a task where it may come to its handover that way. Returns whether it has a task."""
        self.live.add(connection, sock)
        if self.plan.max_lifetime is not None:
            self.live.lifetimes.begin(connection, self.plan.max_lifetime, connections)
        watching = self._watching
        if watching is None:
            connections.start_soon(self.live.run_session, connection, sock, make, proved_before)
            if not in_trio_task():
                trio.lowlevel.current_trio_token().run_sync_soon(self.live.wake, idempotent=True)
            return True
        steps = self.live.begin_session(connection, sock, make, proved_before=proved_before)
        QuickStart(self.live, watching, connection, steps, connections).start(sock)
        if self.plan.max_lifetime is not None and not in_trio_task():
            watching.wake_trio()
        return False

    def _has_room(self) -> bool:
        return len(self.live) < self.plan.max_connections and not self.live.descriptors.full

    def _admit_kept(self, leg: PeerLeg, opening: Opening, connections: trio.Nursery) -> None:
        """Serve the next connection on a kept leg."""
        self.ledger.accepted += 1
        connection = Connection(self.plan.name, leg.name, self.live)

        def session(connection: Connection, sock: socket.socket) -> Session:
            plan, offers = self.plan, self.upstreams.offers
            reopened = leg, opening
            return ListenSession(plan, self.live.trust, offers, self.engine, sock, connection, self.live, self.legs, reopened)

        self._start(connection, leg.stream.socket, connections, session, proved_before=True)

    def _session(self, connection: Connection, sock: socket.socket) -> Session:
        plan, upstreams, trust = self.plan, self.upstreams, self.live.trust
        if upstreams.router is not None:
            legs = self.legs
            return InterceptSession(
                plan, upstreams.router, self.engine, sock, connection, self.live, legs, lambda: self.upstreams.ways
            )
        if plan.mode is Mode.LISTEN:
            return ListenSession(plan, trust, upstreams.offers, self.engine, sock, connection, self.live, self.legs)
        return ConnectSession(plan, trust, upstreams.targets, self.engine, sock, connection, legs=self.legs, rules=self.live)

    # -- what the admin address reads --------------------------------------------------------------------------------------

    @property
    def connections(self) -> AbstractSet[Connection]:
        """The live connections, for reading."""
        return self.live.all

    @property
    def strangers(self) -> int:
        """The number of connections that have no session yet."""
        return self.live.strangers

    @property
    def proving(self) -> int:
        """The number of unauthenticated connections."""
        return self.live.unproved

    @property
    def idle_legs(self) -> int:
        """The number of wire legs between two connections."""
        return len(self.legs)

    @property
    def behind(self) -> list[tuple[str, str, Targets]]:
        """Its targets; see `Upstreams.named`."""
        return self.upstreams.named

    async def reach(self) -> None:
        """Check readiness; see `Upstreams.reach`."""
        await self.upstreams.reach()
