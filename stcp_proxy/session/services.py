"""The services of a listen tunnel, and the one that a peer gets for its identity and the service in OPEN.

A peer that may not use a service gets the same answer in the same time as a peer that asks for an unknown service. So no peer can
find out which services others have. Only the log tells the two cases apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from stcp_proxy.config import HandOn, ServicePlan, TunnelPlan
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.errors import ServiceUnknown
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.keys import PublicKey
from stcp_proxy.redact import shown
from stcp_proxy.upstream.targets import Targets


@dataclass(frozen=True, slots=True)
class Offer:
    """A service: targets, and the peers that may use them.

    Attributes:
        service: its name; empty for the tunnel's own `to`, which is for peers that name no service.
        allow: public keys that may use it, 32 bytes each; None for every peer of the tunnel.
        names: patterns for names of certificates that may use it.
        audits: whether it has the rule of the tunnel, so that peers admitted by audit mode may use it too.
        targets: its targets.
        hand_on: how connections are handed on to it.
    """

    service: str
    allow: frozenset[bytes] | None
    targets: Targets
    hand_on: HandOn
    names: tuple[NamePattern, ...] = ()
    audits: bool = False

    def admits(self, peer: Peer) -> bool:
        """Whether a peer of the tunnel may use it."""
        if peer.audited:
            return self.audits
        if self.allow is None or peer.key in self.allow:
            return True
        return any(pattern.matches(name) for pattern in self.names for name in peer.names)


class Offers:
    """The services of one listen tunnel.

    Args:
        plan: the tunnel.
        targets: the targets of its own `to`.
    """

    def __init__(self, plan: TunnelPlan, targets: Targets) -> None:
        self._default = None
        if plan.to or plan.hand_on.allow_targets is not None:
            self._default = _offer("", ServicePlan(plan.to, plan.allow, plan.hand_on), targets, plan)
        self._services = {
            name: _offer(name, service, Targets(service.to, tunnel=plan.name, balance=service.balance), plan)
            for name, service in plan.services.items()
        }

    @property
    def targets(self) -> dict[str, Targets]:
        """The targets of its services by name, without those of its own `to`."""
        return {name: offer.targets for name, offer in self._services.items()}

    @property
    def of_services(self) -> list[tuple[Targets, HandOn]]:
        """The targets of each service, and how connections are handed on to them."""
        return [(offer.targets, offer.hand_on) for offer in self._services.values()]

    def adopt(self, other: Offers) -> None:
        """Take over the endpoints of the services that these replace, by name."""
        for name, offer in self._services.items():
            if name in other._services:
                offer.targets.adopt(other._services[name].targets)

    def choose(self, service: str | None, peer: Peer) -> Offer:
        """The service that a peer gets.

        Args:
            service: the name in OPEN; None where OPEN has none.
            peer: the identity of the peer.

        Raises:
            ServiceUnknown: the service does not exist, or the peer may not use it. The text, which is for the log, says which.
        """
        offer = self._default if service is None else self._services.get(service)
        if offer is None:
            raise ServiceUnknown(*_why_unknown(service, self._services))
        if not offer.admits(peer):
            what = "'to'" if service is None else f"the service {shown(service)}"
            raise ServiceUnknown(
                f"the peer may not use {what}; the answer to it was that there is no such service",
                remedy="if it should, add it to 'allow'",
            )
        return offer


def _offer(name: str, service: ServicePlan, targets: Targets, plan: TunnelPlan) -> Offer:
    audits = plan.audit is not None and service.allow == plan.allow
    if service.allow is None:
        return Offer(name, None, targets, service.hand_on, audits=audits)
    allow = frozenset(peer.raw for peer in service.allow if isinstance(peer, PublicKey))
    names = tuple(NamePattern(peer) for peer in service.allow if isinstance(peer, str))
    return Offer(name, allow, targets, service.hand_on, names, audits)


def _why_unknown(service: str | None, known: dict[str, Offer]) -> tuple[str]:
    if service is None:
        return ("the peer names no service, and this tunnel has only services",)
    if not known:
        return (f"the peer asks for the service {shown(service)}, and this tunnel has no services",)
    return (f"the peer asks for the service {shown(service)}, which this tunnel does not have",)
