"""The tunnels of a process as one: what runs now, what is on its way out, and the step from one plan to the next.

A change has two halves. `prepare` does everything that can fail (an engine that is not there, an address that is taken) and
touches nothing that serves. `commit` cannot fail: plans are exchanged, listening sockets change hands or are closed, and removed
tunnels drain. A listening socket stays with whoever has its address in the new plan, so that nobody is refused in between; those
who connect in that moment wait in its backlog.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode, Plan, PskAuth, TunnelPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import StcpError
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net import name_cache
from stcp_proxy.net.listen import close_listeners, open_in_place_of
from stcp_proxy.session.handover import removed
from stcp_proxy.session.intercept import check, needs_transparent
from stcp_proxy.session.record import Totals
from stcp_proxy.tunnel.engines import Engines
from stcp_proxy.tunnel.service import BACKLOG, Service

_log = structlog.get_logger("stcp_proxy.supervisor")

Doors = Mapping[str, list[socket.socket]]
"""Listening sockets by the name of the tunnel that is to have them."""


@dataclass(slots=True)
class Prepared:
    """A change that can be made.

    Attributes:
        plan: what is to run.
        opened: new listening sockets, by tunnel.
        handed: for tunnels that get the listening sockets of another one, or keep their own, whose.
    """

    plan: Plan
    opened: dict[str, list[socket.socket]] = field(default_factory=dict)
    handed: dict[str, str] = field(default_factory=dict)

    def abandon(self) -> None:
        """Give up what was opened for it."""
        for listeners in self.opened.values():
            close_listeners(listeners)
        self.opened.clear()


def inherit(old: Plan, new: Plan) -> dict[str, str]:
    """For each tunnel of `new` that finds its listening sockets open: which tunnel of `old` has them.

    A tunnel keeps its own where its address stays; otherwise it takes those of one that gives up the address.
    """
    mine = {tunnel.name: tunnel for tunnel in old.tunnels}
    handed = {tunnel.name: tunnel.name for tunnel in new.tunnels if _same_door(mine.get(tunnel.name), tunnel)}
    free = {name: tunnel for name, tunnel in mine.items() if name not in handed}
    for tunnel in new.tunnels:
        if tunnel.name not in handed:
            giver = next((name for name, other in free.items() if _same_door(other, tunnel)), None)
            if giver is not None:
                handed[tunnel.name] = giver
                del free[giver]
    return handed


def _same_door(old: TunnelPlan | None, new: TunnelPlan) -> bool:
    """Whether the listening sockets of one plan serve the other: all that decides how a socket is made is the same."""
    return old is not None and old.bind == new.bind and needs_transparent(old) == needs_transparent(new)


class Tunnels:
    """Every tunnel of a process.

    Args:
        plan: what it serves at first.

    Attributes:
        plan: what it serves now.
        services: the tunnels that accept, in the plan's order.
        retired: tunnels that were removed and still have connections.
        engines: what carries them.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.services: list[Service] = []
        self.retired: list[Service] = []
        self.engines: Final = Engines()
        self._ledgers: Final[dict[str, Ledger]] = {}
        self._accepting: trio.Nursery | None = None
        self._connections: trio.Nursery | None = None

    # -- life --------------------------------------------------------------------------------------------------------------

    def open(self, listeners: Sequence[list[socket.socket] | None] | None = None) -> None:
        """Start the engines and listen.

        Args:
            listeners: listening sockets for each tunnel, None for one that binds its own.

        Raises:
            StcpError: an engine or an address is not to be had.
        """
        name_cache.configure(self.plan.dns)
        self.engines.want(tunnel.engine for tunnel in self.plan.tunnels)
        self.services = [Service(tunnel, self.engines[tunnel.engine], self._ledger(tunnel)) for tunnel in self.plan.tunnels]
        for number, service in enumerate(self.services):
            service.open(listeners[number] if listeners is not None else None)

    def start(self, accepting: trio.Nursery, connections: trio.Nursery) -> None:
        """Accept.

        Args:
            accepting: for the tasks that accept.
            connections: for everything that outlives them.
        """
        self._accepting, self._connections = accepting, connections
        for service in self.services:
            accepting.start_soon(service.accept, connections)

    def spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the tunnels accept; a stop cancels it."""
        assert self._accepting is not None  # noqa: S101
        self._accepting.start_soon(work)

    async def stop_accepting(self, mode: Mode) -> None:
        """Close the listening sockets of all tunnels of one kind."""
        for service in self.services:
            if service.plan.mode is mode:
                close_listeners(await service.release())

    async def wait_until_inbound_is_idle(self) -> None:
        """Return when no listen tunnel has a connection; never where there is no listen tunnel, which could tell."""
        inbound = [service for service in self.all if service.plan.mode is Mode.LISTEN]
        if not inbound:
            await trio.sleep_forever()
        for service in inbound:
            await service.wait_idle()

    def stop_listening(self) -> None:
        """Close every listening socket; the tasks that accept have ended."""
        for service in self.all:
            service.close()

    def close(self) -> None:
        """Close everything."""
        self.stop_listening()
        self.engines.close()

    @property
    def status(self) -> str:
        """One line for the service manager."""
        return f"{len(self.services)} tunnels listen"

    # -- all of them -------------------------------------------------------------------------------------------------------

    @property
    def all(self) -> list[Service]:
        """Those that accept and those that only drain."""
        return [*self.services, *self.retired]

    @property
    def open_connections(self) -> int:
        """Connections that have not ended."""
        return sum(service.open_connections for service in self.all)

    @property
    def unfinished(self) -> int:
        """Connections whose end now would cut somebody off."""
        return sum(service.unfinished for service in self.all)

    @property
    def totals(self) -> Totals:
        """What has been done so far."""
        done = Totals()
        for ledger in self._ledgers.values():
            done.add(Totals.of(ledger))
        return done

    def _ledger(self, tunnel: TunnelPlan) -> Ledger:
        """Where a tunnel of this name is counted, from its first to its last."""
        return self._ledgers.setdefault(tunnel.name, Ledger())

    async def wait_idle(self) -> None:
        """Return when no connection is left."""
        for service in self.all:
            await service.wait_idle()

    def abort(self, why: StcpError) -> None:
        """End every connection."""
        for service in self.all:
            service.abort(why)

    # -- another plan ------------------------------------------------------------------------------------------------------

    async def prepare(self, plan: Plan, given: Doors | None = None) -> Prepared:
        """Do what may fail of the step to `plan`; nothing that serves is touched.

        Args:
            plan: what is to run.
            given: listening sockets for the tunnels that find none open, from elsewhere; owned by the result.

        Raises:
            StcpError: an engine or an address is not to be had; nothing is left of the attempt.
        """
        change = Prepared(plan, dict(given or {}), inherit(self.plan, plan))
        try:
            self.engines.want(tunnel.engine for tunnel in plan.tunnels)
            for tunnel in plan.tunnels:
                check(tunnel)
                if tunnel.name not in change.handed and tunnel.name not in change.opened:
                    change.opened[tunnel.name] = await trio.to_thread.run_sync(self._open, tunnel, change.handed)
        except BaseException:
            change.abandon()
            raise
        return change

    def _open(self, tunnel: TunnelPlan, handed: Mapping[str, str]) -> list[socket.socket]:
        """Listen for a new tunnel; in a thread, because a name may have to be looked up."""
        kept = set(handed.values())
        leaving = [sock for service in self.services if service.plan.name not in kept for sock in service.listeners]
        return open_in_place_of(leaving, tunnel.bind, backlog=BACKLOG, mode=tunnel.bind_mode)

    async def commit(self, change: Prepared) -> None:
        """Make a prepared change. Cannot fail, and is not cancelled half-way."""
        assert self._accepting is not None  # noqa: S101
        assert self._connections is not None  # noqa: S101
        with trio.CancelScope(shield=True):
            old = {service.plan.name: service for service in self.services}
            rules = {service: service.trust for service in self.all}
            modes = {tunnel.name: tunnel.mode for tunnel in change.plan.tunnels}
            stay = {name for name, giver in change.handed.items() if name == giver and old[name].plan.mode is modes[name]}
            let_go = {name: await service.release() for name, service in old.items() if name not in stay}
            doors = {name: let_go.pop(giver) for name, giver in change.handed.items() if name not in stay} | change.opened
            for name, listeners in let_go.items():  # who has connected already is let in, by the plan that is going
                old[name].admit_waiting(listeners, self._connections)
                close_listeners(listeners)
            self.services = [self._placed(tunnel, old.get(tunnel.name), doors) for tunnel in change.plan.tunnels]
            self.plan = change.plan
            name_cache.configure(change.plan.dns)
            for service in old.values():
                if service not in self.services:
                    self.retired.append(service)
                    self._connections.start_soon(self._retire, service, change.plan.drain)
            self._revoke(rules, self._connections)

    def _revoke(self, rules: Mapping[Service, Trust], nursery: trio.Nursery) -> None:
        """End the connections whose keys have been taken out: of their tunnel, or of the file where the tunnel has gone, too."""
        secrets = [tunnel.auth.secret for tunnel in self.plan.tunnels if isinstance(tunnel.auth, PskAuth)]
        for service, before in rules.items():
            if service in self.retired:
                service.forsake(service.trust.remains(self.plan.known, secrets))
            if service.trust is not before and (gone := service.uncovered(before)):
                nursery.start_soon(service.revoke, gone, before, self.plan.revoke_grace)

    def _placed(self, tunnel: TunnelPlan, service: Service | None, doors: Doors) -> Service:
        """The service that runs `tunnel` from now on, accepting."""
        assert self._accepting is not None  # noqa: S101
        assert self._connections is not None  # noqa: S101
        engine = self.engines[tunnel.engine]
        if service is None or service.plan.mode is not tunnel.mode:
            service = Service(tunnel, engine, self._ledger(tunnel))
        elif service.plan != tunnel:
            service.replace(tunnel, engine)
        service.forget_pairs()
        if tunnel.name in doors:
            service.open(doors[tunnel.name])
            self._accepting.start_soon(service.accept, self._connections)
        return service

    async def _retire(self, service: Service, drain: float) -> None:
        """The rest of a removed tunnel's life."""
        _log.info("tunnel removed", tunnel=service.plan.name, open=service.open_connections, drain_seconds=drain)
        with trio.move_on_after(drain):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.turn_strangers_away)
                await service.wait_idle()
                nursery.cancel_scope.cancel()
        if service.open_connections:
            service.abort(removed())
            await service.wait_idle()
        self.retired.remove(service)
