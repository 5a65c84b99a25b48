"""Everything that lies behind one tunnel: its targets, those of its services and routes, their health checks, and readiness."""

from __future__ import annotations

import trio

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import StcpError
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.session.readiness import reach
from stcp_proxy.session.services import Offers
from stcp_proxy.upstream.health_check import HealthChecker, check_for
from stcp_proxy.upstream.routes import Router, Way
from stcp_proxy.upstream.targets import Targets


class Upstreams:
    """The targets of one tunnel by every way that leads to them.

    Args:
        plan: the tunnel.
        trust: its access rule.
        before: the upstreams of the plan that this one replaces; what is known of their endpoints stays known.

    Attributes:
        plan: the tunnel.
        trust: its access rule.
        targets: those of its own `to`.
        offers: what a listen tunnel offers to its peers.
        router: the routes of an intercepting tunnel; None elsewhere.
    """

    def __init__(self, plan: TunnelPlan, trust: Trust, before: Upstreams | None = None) -> None:
        self.plan = plan
        self.trust = trust
        self.targets = Targets.of(plan)
        self.offers = Offers(plan, self.targets)
        if before is not None:
            self.targets.adopt(before.targets)
            self.offers.adopt(before.offers)
        known = before.router if before is not None else None
        self.router: Router | None = Router(plan, before=known) if plan.intercept is not None else None

    @property
    def ways(self) -> list[Way]:
        """Where its connections go, and by which keys."""
        if self.router is not None:
            return self.router.ways
        return [Way(self.trust, self.targets, Opening(service=self.plan.service))]

    @property
    def named(self) -> list[tuple[str, str, Targets]]:
        """Each set of targets with the service or the route that leads there; both are empty for the tunnel's own `to`."""
        if self.router is not None:
            return [("", match, targets) for match, targets in self.router.targets]
        return [("", "", self.targets), *((name, "", targets) for name, targets in self.offers.targets.items())]

    def forget_key_order(self) -> None:
        """Let each handshake try the first pair of keys first again: keys may have changed on either side."""
        for way in self.ways:
            way.trust.choice.forget()

    async def check_health(self) -> None:
        """Run the health checks of all targets until cancelled."""
        async with trio.open_nursery() as nursery:
            for targets, hand_on in ((self.targets, self.plan.hand_on), *self.offers.of_services):
                check = check_for(self.plan, self.trust, hand_on.proxy_protocol)
                nursery.start_soon(HealthChecker(targets, check, self.plan.health).run)

    async def reach(self) -> None:
        """Return when the far target, or that of every route, has answered; see `stcp_proxy.session.readiness`.

        Raises:
            StcpError: the first failure.
        """
        failures: list[StcpError] = []

        async def ask(way: Way) -> None:
            try:
                await reach(self.plan, way)
            except StcpError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            for way in self.ways:
                nursery.start_soon(ask, way)
        if failures:
            raise failures[0]
