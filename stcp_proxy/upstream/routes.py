"""Where an intercepted connection goes: its original destination, and the first route that covers it.

What no route covers is refused, or passed on unencrypted where the file says so. A port that a route by host name is for is never
passed on: whether an address is that host's cannot be known for certain, since records change and answers are lost, and a
connection that was to be encrypted must not leave in the clear for that.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from dataclasses import dataclass

from stcp_proxy.config.plan import RoutePlan, TunnelPlan
from stcp_proxy.errors import ClientGone, NoRoute, OwnConnection
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.original import original_destination
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.protocol.opening import Endpoint, Opening
from stcp_proxy.upstream.route_names import PATIENCE, LookUp, RouteName, look_up
from stcp_proxy.upstream.targets import Targets


@dataclass(frozen=True, slots=True)
class Way:
    """Where one connection goes.

    Attributes:
        trust: who is to be there.
        targets: where that is.
        opening: what it is told: the service, where it has several, and the original destination.
    """

    trust: Trust
    targets: Targets
    opening: Opening


@dataclass(frozen=True, slots=True)
class InTheClear:
    """What the file lets pass unencrypted.

    Attributes:
        original: where it goes.
    """

    original: Endpoint


class Router:
    """The routes of one tunnel.

    Args:
        plan: the tunnel.
        ask: looks host names up.
        before: the router in whose place this one comes.

    Attributes:
        own: what this tunnel dials.
    """

    def __init__(self, plan: TunnelPlan, *, ask: LookUp = look_up, before: Router | None = None) -> None:
        assert plan.intercept is not None  # noqa: S101
        self._intercept = plan.intercept
        self.own: OwnConnections = OwnConnections(plan.intercept.capture.mark, before.own if before is not None else None)
        self._ways = [(route, self._way(plan, route)) for route in plan.intercept.routes]
        names = {route.match.name for route in plan.intercept.routes if route.match.name is not None}
        known: dict[str, RouteName] = before._hosts if before is not None else {}
        self._hosts: dict[str, RouteName] = {name: known.get(name) or RouteName(name, ask) for name in names}
        self._patience = min(PATIENCE, plan.dial_timeout / 2)
        for _, way in self._ways:
            for _, other in before._ways if before is not None else ():
                if other.targets.to == way.targets.to:
                    way.targets.adopt(other.targets)

    def _way(self, plan: TunnelPlan, route: RoutePlan) -> Way:
        trust = Trust.of(route.auth)
        return Way(trust, Targets(route.to, tunnel=plan.name, balance=plan.balance, own=self.own), Opening(service=route.service))

    @property
    def ways(self) -> list[Way]:
        """Where its routes lead."""
        return [way for _, way in self._ways]

    @property
    def targets(self) -> list[tuple[str, Targets]]:
        """Those of its routes, each with what the route covers."""
        return [(str(route.match), way.targets) for route, way in self._ways]

    async def find(self, sock: socket.socket) -> Way | InTheClear:
        """Where an accepted connection goes.

        Raises:
            NotIntercepted: nobody sent it here: it was dialled to the tunnel itself.
            OwnConnection: it is this process's own, and the rules send it back.
            NoRoute: no route covers where it was going.
            ClientGone: it has ended already.
        """
        original = original_destination(sock, self._intercept.capture.how)
        self._check_foreign(sock, original)
        return await self.find_route(original)

    def _check_foreign(self, sock: socket.socket, original: Endpoint) -> None:
        try:
            client = sock.getpeername()
        except OSError:
            raise ClientGone("the application was gone before its connection was looked at") from None
        if self.own.knows(client, (str(original.ip), original.port)):
            what = f"the rules send this proxy's own connections back to it (this one was going to {original})"
            remedy = f"install them again for the user that it runs as: stcp-proxy intercept --apply --uid {os.geteuid()}"
            raise OwnConnection(what, remedy=remedy)

    async def find_route(self, original: Endpoint) -> Way | InTheClear:
        """The way of the first route that covers a destination.

        Raises:
            NoRoute: there is none, and the file does not let it pass.
        """
        candidates = self._candidates(original)
        names = [name for name, _ in candidates if name is not None]
        for each in names:
            if self._hosts[each].has(original.ip):  # this starts the lookups, all at once
                break
        for name, way in candidates:
            if name is None or await self._hosts[name].covers(original.ip, self._patience):
                return dataclasses.replace(way, opening=dataclasses.replace(way.opening, original=original))
        if self._intercept.pass_unmatched and not names:
            return InTheClear(original)
        raise self._no_route(original, [self._hosts[name] for name in names])

    def _candidates(self, original: Endpoint) -> list[tuple[str | None, Way]]:
        """The routes that may cover a destination, up to the first that certainly does; each by its name, None for a number."""
        found: list[tuple[str | None, Way]] = []
        for route, way in self._ways:
            match = route.match
            if match.name is not None and match.has_port(original.port):
                found.append((match.name, way))
            elif match.match(original.ip, original.port):
                found.append((None, way))
                break
        return found

    def _no_route(self, original: Endpoint, hosts: list[RouteName]) -> NoRoute:
        """The error for a destination that no route covers.

        Args:
            original: the destination.
            hosts: the names of the routes for its port.
        """
        what = f"no route covers {original}, where the application was going"
        remedy = f"add a route for it, or {original} to 'exclude' if it may go unencrypted"
        lost = [f"{host.name} ({host.trouble})" for host in hosts if host.trouble]
        if lost:
            return NoRoute(f"{what}: {' and '.join(lost)} may be there, and could not be looked up", remedy=remedy)
        if not hosts:
            return NoRoute(what, remedy=remedy)
        counts = " and ".join(f"{host.name} ({host.known} addresses known)" for host in hosts)
        what = f"{what}: port {original.port} has a route by name, and this is no known address of {counts}"
        if self._intercept.pass_unmatched:
            what += "; such a port is never passed on unencrypted"
        return NoRoute(what, remedy=f"if a name has a large pool of addresses, write their network into 'match'; else {remedy}")
