"""Build a plan from models: read the key files, and find contradictions.

A mistake is noted and the work goes on, so that one run lists all mistakes. A value with a mistake is None from then on.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

from stcp_proxy.config.admin_address import admin_plan
from stcp_proxy.config.agent import AgentBuilder
from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.config.audit import MAX_DAYS, Audit, is_too_far
from stcp_proxy.config.auth_plan import Admitted, KeyAuth, PskAuth
from stcp_proxy.config.certificates import Certificates
from stcp_proxy.config.hand_on import Entry, Inbound, allow_entries, check_target, target_lists
from stcp_proxy.config.intercept import capture_plan, check_belonging, check_single, route_targets
from stcp_proxy.config.keep import keep_plan
from stcp_proxy.config.model_errors import validate
from stcp_proxy.config.models import ConfigModel
from stcp_proxy.config.otlp import otlp_plan
from stcp_proxy.config.peers import Peers
from stcp_proxy.config.plan import (
    Balance,
    EngineChoice,
    HandOn,
    HealthPlan,
    InterceptPlan,
    LogPlan,
    Mode,
    Plan,
    RoutePlan,
    TunnelPlan,
)
from stcp_proxy.config.setting import Model
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.config.tunnel_models import RouteModel, TunnelModel
from stcp_proxy.config.unix_folder import check_folder
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.errors import KeyFileError, LogClass
from stcp_proxy.keys import PUBLIC_PREFIX, PrivateKey, PublicKey, load_private_key, load_psk
from stcp_proxy.net.address import Address, Destination, UnixAddress, clash, loops
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.unix_socket import UNIX_MODE
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.redact import shown

_T = TypeVar("_T")

_SUITES: Final = {
    ("hybrid", "keys"): Suite.HYBRID_KEYS,
    ("classic", "keys"): Suite.CLASSIC_KEYS,
    ("hybrid", "psk"): Suite.HYBRID_PSK,
    ("classic", "psk"): Suite.CLASSIC_PSK,
    ("hybrid", "keys and psk"): Suite.HYBRID_KEYS_PSK,
}
"""The suite for a key exchange and a kind of authentication. A pair without an entry does not exist."""
_SHORT_KEY: Final = len(PUBLIC_PREFIX) + 12


def build(source: Source) -> Plan:
    """Build the plan of a configuration from any source.

    Raises:
        ConfigError: lists every mistake.
    """
    plan = _Builder(source, validate(source, ConfigModel)).plan()
    source.raise_findings()
    return plan


def _as_they_are(model: Model, plan: type) -> dict[str, Any]:
    """The settings of a model that the plan has under the same name. A new setting needs no line here."""
    names = {field.name for field in dataclasses.fields(plan)} & type(model).model_fields.keys()
    values = {name: getattr(model, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _used(tunnels: tuple[TunnelPlan, ...], agent: AgentPlan | None) -> frozenset[PublicKey]:
    """Every public key that a tunnel or the agent uses."""
    auths = [auth for auth in Plan(tunnels, agent).auths if isinstance(auth, KeyAuth)]
    own = (identity.public for auth in auths for identity in auth.ring)
    return frozenset([*own, *(key for auth in auths for key in auth.peers)])


class _Builder:
    """One pass over a model; mistakes are noted in the source."""

    def __init__(self, source: Source, config: ConfigModel) -> None:
        self.source = source
        self.config = config
        self._files: dict[tuple[str, object], Any] = {}
        self._peers = Peers(source, config.peers.named, config.peers.include)
        self._names = self._peers.names
        self._certificates = Certificates(source, config)

    def plan(self) -> Plan:
        config = self.config
        self._ring(config.identity or [], ("identity",))
        tunnels = [self._tunnel(name, tunnel) for name, tunnel in config.tunnels.items()]
        self._check_binds()
        self._check_takeover()
        check_single(self.source, config)
        agent = None if config.agent is None else AgentBuilder(self.source, self._auth, self._suites).plan(config.agent)
        if not config.tunnels and agent is None:
            self.source.report(("tunnels",), "'tunnels' is missing", "describe at least one tunnel")
        found = tuple(tunnel for tunnel in tunnels if tunnel is not None)
        made = {
            "tunnels": found,
            "agent": agent,
            "included": MappingProxyType(self._peers.included),
            "inputs": MappingProxyType(self.source.inputs),
            "known": (frozenset(self._names) | _used(found, agent)) - self._certificates.revoked_keys,
            "trusted": self._certificates.trusted,
            "log": LogPlan(**_as_they_are(config.log, LogPlan) | {"quiet": frozenset(map(LogClass, config.log.quiet))}),
            "dns": DnsSettings(**_as_they_are(config.dns, DnsSettings)),
            "admin": admin_plan(self.source, config),
            "otlp": otlp_plan(self.source, config),
            "whole": self.source.whole,
        }
        return Plan(**_as_they_are(config, Plan) | made)

    def _tunnel(self, name: str, tunnel: TunnelModel) -> TunnelPlan | None:
        path: KeyPath = ("tunnels", name)
        self._check_addresses(path, tunnel)
        intercept = self._intercept(path, tunnel)
        auth = self._auth(path, tunnel) if tunnel.intercept is None else _whole_auth(intercept)
        if auth is None:
            return None
        made = {
            "name": name,
            "mode": Mode(tunnel.mode),
            "to": tuple(tunnel.targets) if intercept is None else _all_targets(intercept),
            "auth": self._audited(path, tunnel, auth),
            "suites": self._suites(path, tunnel, auth),
            "engine": EngineChoice(tunnel.engine or self.config.engine or EngineChoice.AUTO),
            "bind_mode": self._bind_mode(path, tunnel),
            "freebind": self._freebind(path, tunnel),
            "balance": Balance(tunnel.balance or Balance.FAILOVER),
            "health": self._health(path, tunnel),
            "keep": keep_plan(self.source, path, tunnel),
            "intercept": intercept,
            "ready_by_target": (tunnel.ready or self.config.ready) == "target",
        }
        handed: dict[str, Any] = {"allow": None, "hand_on": HandOn(), "services": {}, "service": None, "accept_proxy": None}
        handed |= Inbound(self.source, path, tunnel, auth, self._allowed).settings()
        return TunnelPlan(**_as_they_are(tunnel, TunnelPlan) | made | handed)

    def _health(self, path: KeyPath, tunnel: TunnelModel) -> HealthPlan:
        if tunnel.intercept is not None and "health" in tunnel.model_fields_set:
            self.source.report((*path, "health"), "the routes of an intercepting tunnel have no health checks", "remove it")
        return HealthPlan(**_as_they_are(tunnel.health, HealthPlan))

    def _freebind(self, path: KeyPath, tunnel: TunnelModel) -> bool:
        if tunnel.freebind and isinstance(tunnel.bind, UnixAddress):
            self.source.report((*path, "freebind"), f"{tunnel.bind} is a unix socket, which needs no interface", "remove it")
        return tunnel.freebind

    def _bind_mode(self, path: KeyPath, tunnel: TunnelModel) -> int:
        if tunnel.bind_mode is None:
            return UNIX_MODE
        if not isinstance(tunnel.bind, UnixAddress):
            self.source.report((*path, "bind_mode"), f"{tunnel.bind} is no unix socket, and has no file mode", "remove it")
        return int(tunnel.bind_mode, 8)

    def _intercept(self, path: KeyPath, tunnel: TunnelModel) -> InterceptPlan | None:
        """The routes of an intercepting tunnel; None for other tunnels, and after a mistake."""
        if tunnel.intercept is None:
            check_belonging(self.source, path, tunnel)
            return None
        capture = capture_plan(self.source, path, tunnel)
        found = [self._route((*path, "routes", index), tunnel, route) for index, route in enumerate(tunnel.routes or ())]
        routes = tuple(route for route in found if route is not None)
        if capture is None or len(routes) < len(found):
            return None
        return InterceptPlan(routes, tunnel.unmatched == "pass-in-the-clear", capture)

    def _route(self, path: KeyPath, tunnel: TunnelModel, route: RouteModel) -> RoutePlan | None:
        targets = route_targets(tunnel, route)
        if not targets:
            self.source.report((*path, "to"), "'to' is missing", "name the address of the peer, here or for the whole tunnel")
        for index, target in enumerate(route.to or []):
            self._check_destination((*path, "to", index), tunnel.bind, target)
        auth = self._auth(path, tunnel.model_copy(update={"peer": route.peer or tunnel.peer}))
        return (
            None if auth is None or not targets else RoutePlan(route.match, tuple(targets), auth, route.service or tunnel.service)
        )

    # -- authentication and access

    def _auth(self, path: KeyPath, tunnel: TunnelModel) -> KeyAuth | PskAuth | None:
        rule, other = ("allow", "peer") if tunnel.mode == "listen" else ("peer", "allow")
        if getattr(tunnel, other) is not None:
            self.source.report((*path, other), f"a {tunnel.mode} tunnel has no '{other}'", f"use '{rule}'")
            return None
        if tunnel.peer is None and not allow_entries(path, tunnel):
            return self._psk_auth(path, tunnel, rule)
        return self._named_auth(path, tunnel, rule)

    def _psk_auth(self, path: KeyPath, tunnel: TunnelModel, rule: str) -> PskAuth | None:
        """The shared secret of a tunnel without a key rule: its own secret, else the file's default."""
        where: KeyPath = ("psk",) if tunnel.psk is None else (*path, "psk")
        file = self.config.psk if tunnel.psk is None else tunnel.psk
        if tunnel.identity is not None and tunnel.psk is not None:
            key = self.source.key
            remedy = f"remove it, or use {key(rule)} instead of {key('psk')}"
            self.source.report((*path, "identity"), f"a tunnel with {key('psk')} has no key of its own", remedy)
            return None
        if file is None or tunnel.identity is not None:
            whom = "anybody could connect" if rule == "allow" else "anybody could answer"
            key = self.source.key
            remedy = f"set {key(rule)} to the public key of the other side"
            self.source.report((*path, rule), f"neither {key(rule)} nor {key('psk')} is given, so {whom}", remedy)
            return None
        secret = self._load(load_psk, file, where)
        return None if secret is None else PskAuth(secret)

    def _named_auth(self, path: KeyPath, tunnel: TunnelModel, rule: str) -> KeyAuth | None:
        """The authentication of a tunnel whose peers are known by keys, by certificates, or by both."""
        rules = allow_entries(path, tunnel) if tunnel.peer is None else [((*path, rule), tunnel.peer)]
        patterns = [(at, entry) for at, entry in rules if isinstance(entry, NamePattern)]
        keys = [(at, entry) for at, entry in rules if not isinstance(entry, NamePattern)]
        if not patterns:
            return self._key_auth(path, tunnel, keys)
        certificates = self._certificates.auth(path, tunnel.mode, patterns)
        if tunnel.psk is not None:
            what = "a shared secret beside keys protects no connection by certificate"
            remedy = "remove it, or move the names of certificates to a tunnel of their own"
            self.source.report((*path, "psk"), what, remedy)
        if not keys:
            return None if certificates is None else KeyAuth(None, MappingProxyType({}), certificates=certificates)
        auth = self._key_auth(path, tunnel, keys)
        return None if auth is None or certificates is None else dataclasses.replace(auth, certificates=certificates)

    def _audited(self, path: KeyPath, tunnel: TunnelModel, auth: KeyAuth | PskAuth) -> KeyAuth | PskAuth:
        """The authentication of a tunnel with the audit mode of its rule, where it has one."""
        if tunnel.allow_mode is None or tunnel.mode != "listen":
            return auth
        where = (*path, "allow_mode")
        if not isinstance(auth, KeyAuth) or auth.psk is not None:
            what = "a tunnel with a shared secret has no audit: a holder of the secret is already admitted"
            self.source.report(where, what, "remove it")
            return auth
        if tunnel.allow is None:
            what = "an audit belongs to the tunnel's own 'allow', which is missing"
            self.source.report(where, what, "remove it, or set 'allow' for the whole tunnel")
        if is_too_far(tunnel.allow_mode.audit, time.time()):
            remedy = "write an earlier date, and extend the audit later"
            self.source.report((*where, "audit"), f"an audit lasts at most {MAX_DAYS} days", remedy)
        return dataclasses.replace(auth, audit=Audit(tunnel.allow_mode.audit, self._certificates.revoked_keys))

    def _key_auth(self, path: KeyPath, tunnel: TunnelModel, rules: Sequence[tuple[KeyPath, Entry]]) -> KeyAuth | None:
        found = [(at, key) for at, entry in rules for key in self._keys(at, entry)]
        where: KeyPath = ("identity",) if tunnel.identity is None else (*path, "identity")
        files = self.config.identity if tunnel.identity is None else tunnel.identity
        if files is None:
            remedy = "make one with 'stcp-proxy keygen --out FILE' and name it here"
            self.source.report(where, "a private key of this side's own is needed", remedy)
            return None
        ring = self._ring(files, where)
        if not ring:
            return None
        own = {identity.public for identity in ring}
        for at, key in found:
            if key in own:
                remedy = "name the other side's, which 'stcp-proxy pubkey' prints there"
                self.source.report(at, "this is this side's own public key", remedy)
        revoked = self._certificates.revoked_keys
        peers = {key: self._names.get(key, str(key)[:_SHORT_KEY] + "…") for _, key in found if key not in revoked}
        psk = None if tunnel.psk is None else self._load(load_psk, tunnel.psk, (*path, "psk"))
        return KeyAuth(ring[0], MappingProxyType(peers), tuple(ring[1:]), psk) if found else None

    def _ring(self, files: Sequence[str], path: KeyPath) -> list[PrivateKey]:
        """The readable keys of this side, in order."""
        found: dict[PublicKey, str] = {}
        ring = []
        for index, file in enumerate(files):
            identity = self._load(load_private_key, file, (*path, index))
            if identity is None:
                continue
            if identity.public in found:
                self.source.report((*path, index), f"this is the same key as {shown(found[identity.public])}", "name it once")
            found.setdefault(identity.public, file)
            ring.append(identity)
        return ring

    def _allowed(self, path: KeyPath, entry: Entry) -> list[Admitted]:
        """The peers that one entry of `allow` names."""
        return [entry.text] if isinstance(entry, NamePattern) else [*self._keys(path, entry)]

    def _keys(self, path: KeyPath, entry: str | PublicKey | NamePattern) -> list[PublicKey]:
        """The keys that one entry of `allow` or `peer` names."""
        if not isinstance(entry, str):
            return [entry] if isinstance(entry, PublicKey) else []
        return list(self._peers.find(path, entry))

    def _suites(self, path: KeyPath, tunnel: TunnelModel, auth: KeyAuth | PskAuth) -> tuple[Suite, ...]:
        names = tunnel.suite or self.config.suite or ["hybrid"]
        kind = "psk" if isinstance(auth, PskAuth) else "keys" if auth.psk is None else "keys and psk"
        certified = isinstance(auth, KeyAuth) and auth.certificates is not None
        where: KeyPath = (*path, "suite") if tunnel.suite else ("suite",)
        if any((name, kind) not in _SUITES for name in names):
            what = "a shared secret beside keys needs the hybrid key exchange"
            self.source.report(where, what, "set 'suite: hybrid', or remove the tunnel's 'psk'")
        if certified and "hybrid" not in names:
            self.source.report(where, "certificates need the hybrid key exchange", "set 'suite: hybrid'")
        by_keys = not isinstance(auth, KeyAuth) or auth.identity is not None
        suites = tuple(dict.fromkeys(_SUITES[name, kind] for name in names if by_keys and (name, kind) in _SUITES))
        suites += (Suite.HYBRID_CERTIFICATES,) if certified else ()
        if tunnel.mode == "connect" and len(names) > 1:
            self.source.report(where, "a connect tunnel sends exactly one suite and never falls back", "name one")
        return suites

    def _load(self, load: Callable[[Path], _T], file: str, path: KeyPath) -> _T | None:
        """The key in a file. Each file is read once, and each mistake in it is noted once."""
        slot = (file, load)
        if slot not in self._files:
            self._files[slot] = None
            try:
                self._files[slot] = load(self.source.file(file))
            except KeyFileError as exc:
                self.source.blame(path, exc)
        found: _T | None = self._files[slot]
        return found

    # -- contradictions

    def _check_addresses(self, path: KeyPath, tunnel: TunnelModel) -> None:
        check_folder(self.source, (*path, "bind"), tunnel.bind)
        if tunnel.intercept is None:
            check_target(self.source, path, tunnel)
        for at, target in target_lists(path, tunnel):
            self._check_destination(at, tunnel.bind, target)

    def _check_destination(self, at: KeyPath, bind: Address, target: Destination) -> None:
        check_folder(self.source, at, target)
        if loops(bind, target):
            what = f"{target} is where this tunnel itself listens ({bind})"
            self.source.report(at, what, "name the address of the target")

    def _check_takeover(self) -> None:
        where = self.config.takeover
        if where is None:
            return
        if not isinstance(where, UnixAddress):
            what = f"{where} is no unix socket, and only a unix socket tells which user asks"
            self.source.report(("takeover",), what, "write unix:/path, in a folder that only this user may write to")
            return
        check_folder(self.source, ("takeover",), where)
        taken = {"admin": self.config.admin} | {f"tunnel '{name}'": tunnel.bind for name, tunnel in self.config.tunnels.items()}
        for name, address in taken.items():
            if address == where:
                self.source.report(("takeover",), f"{where} is taken by {name}", "give it a path of its own")

    def _check_binds(self) -> None:
        seen: list[tuple[str, Address]] = []
        for name, tunnel in self.config.tunnels.items():
            for other, bound in seen:
                if clash(bound, tunnel.bind):
                    what = f"{tunnel.bind} is taken by tunnel '{other}' ({bound})"
                    self.source.report(("tunnels", name, "bind"), what, "give each tunnel its own")
                    break
            seen.append((name, tunnel.bind))


def _all_targets(intercept: InterceptPlan) -> tuple[Destination, ...]:
    return tuple(dict.fromkeys(target for route in intercept.routes for target in route.to))


def _whole_auth(intercept: InterceptPlan | None) -> KeyAuth | PskAuth | None:
    """The authentication that covers the peers of all routes."""
    if intercept is None:
        return None
    first = intercept.routes[0].auth
    auths = [route.auth for route in intercept.routes if isinstance(route.auth, KeyAuth)]
    if not isinstance(first, KeyAuth):
        return first
    peers = {key: name for auth in auths for key, name in auth.peers.items()}
    keyed = next((auth for auth in auths if auth.identity is not None), first)
    by_name = [auth.certificates for auth in auths if auth.certificates is not None]
    names = tuple(dict.fromkeys(name for each in by_name for name in each.allow))
    certificates = dataclasses.replace(by_name[0], allow=names) if by_name else None
    return KeyAuth(keyed.identity, MappingProxyType(peers), keyed.further, keyed.psk, certificates)
