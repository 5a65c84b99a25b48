"""The rules of the agent: which socket may use which identity, and which peer it may have.

A socket without a rule gets no connection: there is no default peer and no connection without authentication.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from stcp_proxy.agent.messages import Pending
from stcp_proxy.agent.netlink_abi import MAX_NAME, SocketRole
from stcp_proxy.config import KeyAuth, PskAuth
from stcp_proxy.config.agent_plan import DEFAULT_IDENTITY, AgentPlan, IdentityPlan
from stcp_proxy.errors import NoIdentity, ServiceUnknown
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.redact import shown


@dataclass(frozen=True, slots=True)
class Rule:
    """What applies to one socket.

    Attributes:
        identity: the name of its identity.
        trust: the peers that it may have.
        suites: the suite that it sends, or the suites that it accepts.
        service: the service that a connecting socket asks for; None without one.
        services: the services that a peer may ask a listening socket for.
        handshake_timeout: seconds for a handshake that finds out which keys the peer has.
    """

    identity: str
    trust: Trust
    suites: tuple[Suite, ...]
    service: str | None = None
    services: frozenset[str] = frozenset()
    handshake_timeout: float = 10.0

    def check_service(self, asked: str | None) -> None:
        """Raises ServiceUnknown where a peer may not ask a listening socket for a service."""
        if asked is not None and asked not in self.services:
            raise ServiceUnknown(
                f"the peer asks for the service {shown(asked)}, which this identity does not offer",
                remedy=f"add it to 'services' of the identity {shown(self.identity)}, or let the peer name no service",
            )


class Policy:
    """The rules of one plan.

    Args:
        plan: the plan.
        before: the rules before a reload. What has not changed is taken over, with its memory of which keys worked.
    """

    def __init__(self, plan: AgentPlan, before: Policy | None = None) -> None:
        self.plan: Final = plan
        self._trusts: Final[list[tuple[KeyAuth | PskAuth, Trust]]] = []
        known = [] if before is None else before._trusts
        for identity in plan.identities.values():
            for auth in identity.auths:
                if self._find(auth, self._trusts) is None:
                    self._trusts.append((auth, self._find(auth, known) or Trust.of(auth)))

    @staticmethod
    def _find(auth: KeyAuth | PskAuth, among: list[tuple[KeyAuth | PskAuth, Trust]]) -> Trust | None:
        return next((trust for each, trust in among if each == auth), None)

    def _trust(self, auth: KeyAuth | PskAuth) -> Trust:
        trust = self._find(auth, self._trusts)
        assert trust is not None  # noqa: S101
        return trust

    def rule(self, pending: Pending, remote: Endpoint | None) -> Rule:
        """The rule for a socket.

        Args:
            pending: the socket's handshake.
            remote: the other end of its TCP connection; None where that has ended already.

        Raises:
            NoIdentity: there is none.
        """
        if pending.bad_name:
            raise NoIdentity(
                f"{pending.bad_name}, which is not UTF-8 text of 1 to {MAX_NAME} bytes",
                remedy="correct the name in the application of this user, or in the sysctl (net.stcp.identity, net.stcp.service)",
            )
        name = pending.identity or DEFAULT_IDENTITY
        identity = self.plan.identities.get(name)
        if identity is None:
            raise NoIdentity(
                f"the socket wants the identity {shown(name)}, which this agent does not have",
                remedy="add it to 'identities', or set STCP_IDENTITY (sysctl net.stcp.identity) to a name that is there",
            )
        if identity.users is not None and pending.uid not in identity.users:
            raise NoIdentity(
                f"user {pending.uid} may not use the identity {shown(name)}",
                remedy="if the user should, add it to 'users' of the identity",
            )
        found = next(self._rules(name, identity, pending, remote), None)
        if found is not None:
            return found
        if pending.role is SocketRole.RESPONDER:
            what = f"the identity {shown(name)} admits nobody to its listening sockets"
            raise NoIdentity(what, remedy="set 'allow' in the identity")
        raise NoIdentity(
            f"no peer of the identity {shown(name)} is expected at {remote or 'an address that is gone'}",
            remedy="add the address to 'connect' of the identity, with the peer that answers there",
        )

    def _rules(self, name: str, identity: IdentityPlan, pending: Pending, remote: Endpoint | None) -> Iterator[Rule]:
        """The rules that cover a socket, best first."""
        if pending.role is SocketRole.RESPONDER:
            if identity.auth is not None:
                yield Rule(name, self._trust(identity.auth), identity.suites, services=identity.services)
            return
        for peer in identity.peers:
            if remote is not None and peer.match.match(remote.ip, remote.port):
                yield Rule(name, self._trust(peer.auth), (peer.suite,), service=pending.service or peer.service)
