"""The part of ``plan_builder`` for the agent of kernel sockets.

The authentication of an identity is that of a tunnel: its listening sockets are a listen tunnel, and each entry of `connect` is a
connect tunnel.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from stcp_proxy.config.agent_models import AgentModel, ExpectedPeerModel, IdentityModel
from stcp_proxy.config.agent_plan import AgentPlan, ExpectedPeer, IdentityPlan
from stcp_proxy.config.auth_plan import KeyAuth, PskAuth
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import TunnelModel
from stcp_proxy.config.value_types import ALL_USERS
from stcp_proxy.protocol.wire import Suite

_Auth = KeyAuth | PskAuth
_Authenticate = Callable[[KeyPath, TunnelModel], _Auth | None]
_Suites = Callable[[KeyPath, TunnelModel, _Auth], tuple[Suite, ...]]


class AgentBuilder:
    """Makes the plan of the agent; mistakes are noted in the source.

    Args:
        source: collects the mistakes.
        auth: makes the authentication of a tunnel.
        suites: makes the suites of a tunnel.
    """

    def __init__(self, source: Source, auth: _Authenticate, suites: _Suites) -> None:
        self._source = source
        self._auth = auth
        self._suites = suites

    def plan(self, model: AgentModel) -> AgentPlan:
        """The plan of the agent. Identities with mistakes are missing in it."""
        found = {name: self._identity(("agent", "identities", name), each) for name, each in model.identities.items()}
        identities = {name: identity for name, identity in found.items() if identity is not None}
        return AgentPlan(MappingProxyType(identities), model.max_handshakes)

    def _identity(self, path: KeyPath, model: IdentityModel) -> IdentityPlan | None:
        listens = model.allow is not None or (model.psk is not None and model.identity is None)
        if not listens and model.connect is None:
            key = self._source.key
            remedy = f"set {key('allow')} for listening sockets, or {key('connect')} for those that connect"
            self._source.report(path, "this identity has no peer, so no socket could use it", remedy)
            return None
        if not listens and model.services is not None:
            what = "services belong to listening sockets, and this identity admits nobody to them"
            self._source.report((*path, "services"), what, "set 'allow', or remove it")
        tunnel = _as_tunnel(model, mode="listen", allow=model.allow)
        auth = self._auth(path, tunnel) if listens else None
        peers = [self._peer((*path, "connect", index), model, entry) for index, entry in enumerate(model.connect or [])]
        return IdentityPlan(
            users=self._users(path, model),
            auth=auth,
            suites=() if auth is None else self._suites(path, tunnel, auth),
            services=frozenset(model.services or []),
            peers=tuple(peer for peer in peers if peer is not None),
        )

    def _users(self, path: KeyPath, model: IdentityModel) -> frozenset[int] | None:
        users = frozenset(user for user in model.users if not isinstance(user, str))
        if ALL_USERS not in model.users:
            return users
        if users:
            what = "all users and some users exclude each other"
            self._source.report((*path, "users"), what, "write 'all' alone, or remove it")
        return None

    def _peer(self, path: KeyPath, identity: IdentityModel, entry: ExpectedPeerModel) -> ExpectedPeer | None:
        if entry.match.name is not None:
            what = f"{entry.match} is a name, and the kernel knows only the address that a socket connects to"
            self._source.report((*path, "match"), what, "write the address or its network")
        tunnel = _as_tunnel(identity, mode="connect", peer=entry.peer)
        auth = self._auth(path, tunnel)
        suites = () if auth is None else self._suites(path[:3], tunnel, auth)
        return ExpectedPeer(entry.match, auth, suites[0], entry.service) if auth is not None and suites else None


def _as_tunnel(identity: IdentityModel, **settings: object) -> TunnelModel:
    """The settings of an identity for authentication, as those of a tunnel."""
    given = {"identity": identity.identity, "psk": identity.psk, "suite": identity.suite}
    return TunnelModel.model_construct(None, **given | settings)
