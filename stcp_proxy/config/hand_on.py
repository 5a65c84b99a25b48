"""Checks of the settings for handing on: what a listen tunnel offers, and what a connect tunnel requests and accepts.

The tunnel's settings for handing on (`allow`, `proxy_protocol`, `allow_clients`) are the defaults of its services. The handshake
admits every peer in any `allow`. The access to a service is decided after the peer has requested it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from stcp_proxy.config.auth_plan import Admitted, KeyAuth, PskAuth
from stcp_proxy.config.intercept import BELONGING
from stcp_proxy.config.original import allowed_targets, check_peer_is_named
from stcp_proxy.config.plan import AcceptProxy, Balance, HandOn, ServicePlan
from stcp_proxy.config.setting import setting_of
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import HandOnModel, TunnelModel
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.keys import PublicKey
from stcp_proxy.net.address import Destination, UnixAddress
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.special_addresses import is_loopback

Entry = str | PublicKey | NamePattern
_Find = Callable[[KeyPath, Entry], Sequence[Admitted]]

_TOLD_ELSEWHERE: Final = {"allow", "peer", "intercept", *BELONGING}
"""Settings for one mode whose mistakes have messages elsewhere."""


def allow_entries(path: KeyPath, tunnel: TunnelModel) -> list[tuple[KeyPath, Entry]]:
    """Every entry of `allow`, of the tunnel and of its services, with its key path."""
    found = [((*path, "allow", index), entry) for index, entry in enumerate(tunnel.allow or [])]
    for name, service in (tunnel.services or {}).items():
        found += [((*path, "services", name, "allow", index), entry) for index, entry in enumerate(service.allow or [])]
    return found


def target_lists(path: KeyPath, tunnel: TunnelModel) -> Iterator[tuple[KeyPath, Destination]]:
    """Every address of `to`, of the tunnel and of its services, with its key path."""
    lists = [((*path, "to"), tunnel.to or [])]
    lists += [((*path, "services", name, "to"), service.to) for name, service in (tunnel.services or {}).items()]
    for where, targets in lists:
        for index, target in enumerate(targets):
            if not isinstance(target, str):
                yield (*where, index), target


def check_target(source: Source, path: KeyPath, tunnel: TunnelModel) -> None:
    """Note a tunnel without any target."""
    if not tunnel.to and not tunnel.services:
        services = ", or name 'services'" if tunnel.mode == "listen" else ""
        source.report((*path, "to"), "'to' is missing", f"name the target of the connections{services}")


class Inbound:
    """Makes the settings of one tunnel for handing on; mistakes are noted in the source.

    Args:
        source: collects the mistakes.
        path: the key path of the tunnel.
        tunnel: the tunnel's model.
        auth: the authentication of the tunnel.
        find: returns the peers of an entry of `allow`, and notes an unknown name.
    """

    def __init__(self, source: Source, path: KeyPath, tunnel: TunnelModel, auth: KeyAuth | PskAuth, find: _Find) -> None:
        self._source = source
        self._path = path
        self._tunnel = tunnel
        self._keys = isinstance(auth, KeyAuth)
        self._admitted: frozenset[Admitted] = auth.admitted if isinstance(auth, KeyAuth) else frozenset()
        self._find = find

    def settings(self) -> dict[str, Any]:
        """The values for `TunnelPlan`."""
        tunnel, path = self._tunnel, self._path
        for name in tunnel.model_fields_set - _TOLD_ELSEWHERE:
            mode = setting_of(TunnelModel.model_fields[name]).mode
            if mode not in (None, tunnel.mode):
                what = f"a {tunnel.mode} tunnel has no '{name}'"
                self._source.report((*path, name), what, f"it belongs to the {mode} side")
        if tunnel.mode == "connect":
            check_peer_is_named(self._source, path, tunnel)
            return {"service": tunnel.service, "accept_proxy": self._accept_proxy()}
        if tunnel.to and self._keys and tunnel.allow is None:
            remedy = "set 'allow', or remove 'to' if every peer asks for a service"
            self._source.report((*path, "allow"), "'allow' is missing, so no peer could reach 'to'", remedy)
        return {
            "allow": self._allowed(path, tunnel.allow),
            "hand_on": self._hand_on(path, tunnel),
            "services": {name: self._service(name) for name in tunnel.services or {}},
        }

    def _service(self, name: str) -> ServicePlan:
        tunnel, path = self._tunnel, (*self._path, "services", name)
        assert tunnel.services is not None  # noqa: S101
        service = tunnel.services[name]
        if self._keys and service.allow is None and tunnel.allow is None:
            remedy = "set 'allow' here, or for the whole tunnel"
            self._source.report(path, "neither the service nor its tunnel has 'allow', so no peer could use it", remedy)
        allow = self._allowed(path, service.allow) if service.allow is not None else self._allowed(self._path, tunnel.allow)
        balance = Balance(service.balance or tunnel.balance or Balance.FAILOVER)
        return ServicePlan(to=tuple(service.targets), allow=allow, hand_on=self._hand_on(path, service), balance=balance)

    def _allowed(self, path: KeyPath, entries: Sequence[Entry] | None) -> frozenset[Admitted] | None:
        found = [self._find((*path, "allow", index), entry) for index, entry in enumerate(entries or [])]
        allowed = frozenset(peer for each in found for peer in each) & self._admitted
        return None if allowed == self._admitted else allowed

    def _hand_on(self, path: KeyPath, model: HandOnModel) -> HandOn:
        """The settings of `model`; the tunnel's settings are the defaults."""
        version = model.proxy_protocol or self._tunnel.proxy_protocol or "none"
        clients = model.allow_clients if model.allow_clients is not None else self._tunnel.allow_clients
        transparent = (model.source or self._tunnel.source) == "transparent"
        self._check_source(path, model, transparent=transparent)
        if model.allow_clients is not None:
            where = (*path, "allow_clients")
            self._check_addresses_alone(where, model.allow_clients)
            if version == "none" and not transparent and not (model is self._tunnel and self._tunnel.services):
                what = "no target is told the client's address, so this has no effect"
                self._source.report(where, what, "set 'proxy_protocol' or 'source: transparent', or remove this")
        return HandOn(
            proxy_protocol=None if version == "none" else version,
            allow_clients=None if clients is None else tuple(clients),
            allow_targets=allowed_targets(self._source, path, model, self._tunnel),
            transparent=transparent,
        )

    def _check_source(self, path: KeyPath, model: HandOnModel, *, transparent: bool) -> None:
        """Note a unix socket as target of `source: transparent`: only TCP has a source address."""
        for index, target in enumerate(model.to or []):
            if transparent and isinstance(target, UnixAddress):
                what = f"'source: transparent' dials from the client's address, and {target} is a unix socket"
                self._source.report((*path, "to", index), what, "set 'source: own' here, or let the server listen on TCP")

    def _accept_proxy(self) -> AcceptProxy | None:
        rule, path = self._tunnel.accept_proxy_protocol, (*self._path, "accept_proxy_protocol")
        if rule is None:
            return None
        bind = self._tunnel.bind
        if rule.senders is None:
            if not isinstance(bind, UnixAddress) and not is_loopback(bind.host):
                what = f"every host that reaches {bind} could claim any client address"
                self._source.report(path, what, "list the proxies that may send a header under 'from'")
            return AcceptProxy()
        if isinstance(bind, UnixAddress):
            what = "a client of a unix socket has no address"
            self._source.report(
                (*path, "from"), what, "write 'accept_proxy_protocol: true'; the socket's mode decides who may connect"
            )
        self._check_addresses_alone((*path, "from"), rule.senders)
        return AcceptProxy(tuple(rule.senders))

    def _check_addresses_alone(self, path: KeyPath, rules: Sequence[Pattern]) -> None:
        """Note ports and names where only addresses count: a client's port is random, and a name proves nothing."""
        for index, rule in enumerate(rules):
            if rule.name is not None:
                self._source.report((*path, index), f"{rule} is a name", "write addresses or networks")
            elif not rule.every_port:
                self._source.report((*path, index), f"{rule} has a port, which a client picks at random", "leave it out")
