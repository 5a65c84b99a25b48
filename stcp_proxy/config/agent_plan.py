"""The part of a plan for the agent of kernel sockets: who may use which identity, and which peers each identity admits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stcp_proxy.config.auth_plan import KeyAuth, PskAuth
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.protocol.wire import Suite

DEFAULT_IDENTITY: Final = "default"
"""The identity of sockets that name none."""


@dataclass(frozen=True, slots=True)
class ExpectedPeer:
    """The peer that sockets of an identity expect at some addresses.

    Attributes:
        match: the addresses.
        auth: the authentication of the peer; with keys, those of exactly one name.
        suite: the suite that the sockets send.
        service: the service to ask for where a socket names none.
    """

    match: Pattern
    auth: KeyAuth | PskAuth
    suite: Suite
    service: str | None = None

    def __str__(self) -> str:
        service = f", service {self.service}" if self.service else ""
        return f"{self.match} is {_names(self.auth)}{service}"


@dataclass(frozen=True, slots=True)
class IdentityPlan:
    """One identity of sockets.

    Attributes:
        users: ids of the users whose sockets may use it; None for every user.
        auth: the authentication of those who may connect to its listening sockets; None where it has none.
        suites: the suites that its listening sockets accept.
        services: names of services that peers may ask its listening sockets for. A peer may always name none.
        peers: the peers that its sockets may connect to; the first that matches decides.
    """

    users: frozenset[int] | None
    auth: KeyAuth | PskAuth | None = None
    suites: tuple[Suite, ...] = ()
    services: frozenset[str] = frozenset()
    peers: tuple[ExpectedPeer, ...] = ()

    def __str__(self) -> str:
        users = "all" if self.users is None else ", ".join(map(str, sorted(self.users)))
        parts = [f"users {users}", *map(str, self.peers)]
        if self.auth is not None:
            parts.append(f"allows {_names(self.auth)}")
        if self.services:
            parts.append(f"services {', '.join(sorted(self.services))}")
        return "; ".join(parts)

    @property
    def auths(self) -> list[KeyAuth | PskAuth]:
        """The authentication of all its peers."""
        return [*([] if self.auth is None else [self.auth]), *(peer.auth for peer in self.peers)]


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """The agent of this network namespace.

    Attributes:
        identities: by name.
        max_handshakes: the largest number of handshakes at a time. A newcomer takes the place of a stranger, or waits.
    """

    identities: Mapping[str, IdentityPlan]
    max_handshakes: int = 256


def _names(auth: KeyAuth | PskAuth) -> str:
    return ", ".join(auth.peer_names) if isinstance(auth, KeyAuth) else "a holder of the shared secret"
