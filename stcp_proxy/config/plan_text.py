"""A plan as text."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Final

from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.config.audited_rules import AuditedRule
from stcp_proxy.config.auth_plan import Admitted, KeyAuth
from stcp_proxy.config.certificate_plan import Trusted
from stcp_proxy.config.diff import words
from stcp_proxy.config.exposure import exposures
from stcp_proxy.config.plan import (
    AcceptProxy,
    AdminPlan,
    Balance,
    HandOn,
    HealthPlan,
    InterceptPlan,
    KeepPlan,
    Mode,
    Plan,
    TunnelPlan,
)
from stcp_proxy.net.address import Destination, UnixAddress
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.protocol.wire import Suite

_SUITES: Final = {
    Suite.HYBRID_KEYS: "hybrid (X25519 with ML-KEM-768, keys)",
    Suite.CLASSIC_KEYS: "classic (X25519, keys)",
    Suite.HYBRID_PSK: "hybrid (X25519 with ML-KEM-768, shared secret)",
    Suite.CLASSIC_PSK: "classic (X25519, shared secret)",
    Suite.HYBRID_CERTIFICATES: "hybrid (X25519 with ML-KEM-768, certificates)",
    Suite.HYBRID_KEYS_PSK: "hybrid (X25519 with ML-KEM-768, keys and a shared secret)",
}


def describe_plan(plan: Plan) -> str:
    """Describe a plan for a person to check: every address, every key in full, every limit; no secrets."""
    blocks = ["\n".join(_tunnel(tunnel)) for tunnel in plan.tunnels]
    blocks += [] if plan.agent is None else ["\n".join(_agent(plan.agent))]
    log = f"log: level {plan.log.level}, {plan.log.format or 'text on a terminal, JSON elsewhere'}"
    if plan.log.quiet:
        log += f", without lines about {' and '.join(sorted(plan.log.quiet))}"
    whole = [
        f"drain: {_time(plan.drain)}" + (", connect tunnels go on accepting" if plan.drain_outbound == "keep" else ""),
        f"revoked keys: their connections end after {_time(plan.revoke_grace)}",
        *_trusted(plan.trusted),
        f"workers: {plan.workers}",
        f"stalled readers: {plan.stalled_mib} MiB in all, then short reads",
        "watch: never" if plan.watch is None else f"watch: every {_time(plan.watch)}, {len(plan.inputs)} files and directories",
        _takeover(plan),
        f"sandbox: {plan.sandbox}",
        _dns(plan.dns),
        log,
        _admin(plan.admin),
        f"spans: {plan.otlp or 'none'}",
        *(row.strip() for row in _others(plan, _WHOLE_BY_HAND)),
    ]
    return "\n\n".join([*blocks, "\n".join(whole)])


def _agent(agent: AgentPlan) -> Iterator[str]:
    yield "agent of kernel sockets"
    yield from _rows("limits", [f"{agent.max_handshakes} handshakes at a time"])
    for name, identity in agent.identities.items():
        yield f"identity {name}"
        yield from _rows("users", ["all" if identity.users is None else ", ".join(map(str, sorted(identity.users)))])
        yield from _rows("connects to", list(map(str, identity.peers)))
        keys = [auth for auth in identity.auths if isinstance(auth, KeyAuth)]
        yield from _rows("own key", list(dict.fromkeys(str(own.public) for auth in keys for own in auth.ring)))
        certificates = [str(auth.certificates.own) for auth in keys if auth.certificates is not None]
        yield from _rows("certificate", list(dict.fromkeys(certificates)))
        for each in identity.peers:
            if isinstance(each.auth, KeyAuth):
                yield from _rows("peer", [f"{key}  {name}" for key, name in each.auth.peers.items()])
        if identity.auth is None:
            yield from _rows("listens", ["no"])
        elif isinstance(identity.auth, KeyAuth):
            admitted = [f"{key}  {name}" for key, name in identity.auth.peers.items()]
            admitted += () if identity.auth.certificates is None else identity.auth.certificates.allow
            yield from _rows("allowed", admitted)
        else:
            yield from _rows("allowed", ["every holder of the shared secret"])
        yield from _rows("services", [", ".join(sorted(identity.services))] if identity.services else [])
        suites = dict.fromkeys([*identity.suites, *(peer.suite for peer in identity.peers)])
        yield from _rows("suite", [_SUITES[suite] for suite in suites])


def _trusted(trusted: Trusted) -> Iterator[str]:
    """Every certificate and list of the authorities, and what is revoked."""
    for authority in trusted.authorities:
        yield f"authority {authority.name}: may vouch for {', '.join(authority.names) or 'all names'}"
        yield from _rows("certificate", [str(root) for root in authority.roots])
        yield from _rows("revocations", [str(each) for each in authority.lists])
        if authority.refuses_overdue:
            yield from _rows("overdue list", ["its certificates are refused"])
    revoked = trusted.revoked
    if revoked.keys or revoked.serials:
        yield f"revoked: {len(revoked.keys)} keys, {len(revoked.serials)} certificates by serial number"


def _takeover(plan: Plan) -> str:
    if plan.takeover is None:
        return "takeover by a new process: not possible"
    return f"takeover by a new process: at {plan.takeover}, connections then end within {_time(plan.takeover_drain)}"


def _admin(admin: AdminPlan | None) -> str:
    if admin is None:
        return "admin: none"
    return f"admin: {admin.address}, {'no token' if admin.token is None else 'with a token'}"


def _dns(dns: DnsSettings) -> str:
    servers = f", asked of {', '.join(map(str, dns.servers))}" if dns.servers else ""
    used = f"answers used for {_time(dns.ttl)}, and {_time(dns.stale)} longer while the resolver is down"
    return f"dns: {used}; routes by name cover an address for {_time(dns.keep)}{servers}"


def _tunnel(tunnel: TunnelPlan) -> Iterator[str]:
    plain, wire = ("from plain", "to STCP") if tunnel.mode is Mode.CONNECT else ("from STCP", "to plain")
    yield f"{tunnel.name} ({tunnel.mode})"
    yield from _rows(plain, [_bind(tunnel)])
    if tunnel.intercept is None:
        yield from _rows(wire, _targets(tunnel.to, tunnel.hand_on))
    else:
        yield from _intercept(tunnel.intercept)
    if len(tunnel.to) > 1 or tunnel.balance is not Balance.FAILOVER:
        yield from _rows("balance", [str(tunnel.balance)])
    if tunnel.intercept is None:
        yield from _rows("health", [_health(tunnel.health)])
    yield from _hand_on(tunnel.hand_on)
    yield from _rows("allowed here", _names(tunnel, tunnel.allow))
    for name, service in tunnel.services.items():
        yield from _rows("service", [f"{name}: {', '.join(_targets(service.to, service.hand_on))}"])
        if len(service.to) > 1 or service.balance is not Balance.FAILOVER:
            yield from _rows("balance", [str(service.balance)])
        yield from _hand_on(service.hand_on)
        yield from _rows("allowed here", _names(tunnel, service.allow))
    if tunnel.service is not None:
        yield from _rows("service", [tunnel.service])
    if tunnel.accept_proxy is not None:
        yield from _rows("headers", [_senders(tunnel.accept_proxy)])
    if isinstance(tunnel.auth, KeyAuth):
        yield from _rows("own key", [str(identity.public) for identity in tunnel.auth.ring])
        peers = [f"{key}  {name}" for key, name in tunnel.auth.peers.items()]
        if tunnel.auth.certificates is not None:
            yield from _rows("certificate", [str(tunnel.auth.certificates.own)])
            if tunnel.auth.certificates.ends_expired:
                yield from _rows("expired", ["connections end with the certificate of their peer"])
            peers += tunnel.auth.certificates.allow
        yield from _rows("peer" if tunnel.mode is Mode.CONNECT else "allowed", peers)
    else:
        yield from _rows("auth", ["a shared secret: every holder may connect"])
    yield from _rows("suite", [_SUITES[suite] for suite in tunnel.suites])
    yield from _rows("engine", [str(tunnel.engine)])
    yield from _rows("keep", [_keep(tunnel.keep)])
    if tunnel.ready_by_target:
        yield from _rows("ready", ["while its far target answers"])
    yield from _rows("limits", [f"{tunnel.max_connections} connections, {tunnel.max_handshakes} handshakes under way"])
    yield from _rows("of each peer", _limits_per_peer(tunnel))
    yield from _rows("deadlines", [_deadlines(tunnel)])
    yield from _others(tunnel, _TUNNEL_BY_HAND)
    if tunnel.audit is not None:
        what, *rest = AuditedRule(tunnel.name, tunnel.audit).warning(time.time())
        yield from _rows("WARNING", [f"the {what}: {rest[0]}", *rest[1:]])
    for each in exposures(tunnel):
        yield from _rows("WARNING", [f"{each.address} is open to the network: {each.why}", each.remedy])


def _targets(to: tuple[Destination, ...], hand_on: HandOn) -> list[str]:
    original = [] if hand_on.allow_targets is None else ["the client's original destination"]
    return original + [str(target) for target in to]


def _hand_on(hand_on: HandOn) -> Iterator[str]:
    if hand_on.proxy_protocol is not None:
        yield from _rows("header", [f"PROXY protocol {hand_on.proxy_protocol}"])
    if hand_on.transparent:
        yield from _rows("source", ["the client's own address"])
    if hand_on.allow_clients is not None:
        yield from _rows("clients", [str(rule) for rule in hand_on.allow_clients])
    if hand_on.allow_targets is not None:
        yield from _rows("may go to", [str(rule) for rule in hand_on.allow_targets])


def _names(tunnel: TunnelPlan, allow: frozenset[Admitted] | None) -> list[str]:
    """The names of the peers that may use a part of the tunnel; empty where every admitted peer may use it."""
    if allow is None or not isinstance(tunnel.auth, KeyAuth):
        return []
    names = [name for key, name in tunnel.auth.peers.items() if key in allow]
    return [", ".join([*names, *sorted(pattern for pattern in allow if isinstance(pattern, str))]) or "nobody"]


def _senders(rule: AcceptProxy) -> str:
    who = "every client" if rule.senders is None else ", ".join(map(str, rule.senders))
    return f"a PROXY header is required, from {who}"


def _bind(tunnel: TunnelPlan) -> str:
    if isinstance(tunnel.bind, UnixAddress):
        return f"{tunnel.bind}, mode {tunnel.bind_mode:04o}"
    return f"{tunnel.bind}, although no interface may have it yet" if tunnel.freebind else str(tunnel.bind)


def _intercept(intercept: InterceptPlan) -> Iterator[str]:
    capture = intercept.capture
    taken = ["everything"] if capture.only is None else [str(pattern) for pattern in capture.only]
    yield from _rows("intercepts", [f"by {capture.how}: {', '.join(taken)}"])
    yield from _rows("but not", [str(pattern) for pattern in (*capture.peers, *capture.exclude)])
    yield from _rows("forwarded", [f"from {name}" for name in capture.forwarded])
    yield from _rows("mark", [] if capture.mark is None else [str(capture.mark)])
    yield from _rows("routes", list(map(str, intercept.routes)))
    rest = "PASSED ON UNENCRYPTED" if intercept.pass_unmatched else "refused"
    yield from _rows("what else", [rest])


_TUNNEL_BY_HAND: Final = {
    "name",
    "mode",
    "bind",
    "to",
    "auth",
    "suites",
    "engine",
    "max_connections",
    "max_handshakes",
    "max_connections_per_peer",
    "rate_per_peer",
    "handshake_timeout",
    "dial_timeout",
    "idle_timeout",
    "max_lifetime",
    "half_close_timeout",
    "bind_mode",
    "freebind",
    "balance",
    "allow",
    "hand_on",
    "services",
    "service",
    "accept_proxy",
    "intercept",
    "health",
    "keep",
    "ready_by_target",
}
_WHOLE_BY_HAND: Final = {
    "tunnels",
    "drain",
    "drain_outbound",
    "revoke_grace",
    "workers",
    "stalled_mib",
    "watch",
    "takeover",
    "takeover_drain",
    "sandbox",
    "log",
    "admin",
    "otlp",
    "dns",
    "known",
    "included",
    "inputs",
    "trusted",
    "agent",
    "whole",
}
"""Fields of a plan with their own text above; other fields are shown by name."""


def _others(plan: TunnelPlan | Plan, by_hand: set[str]) -> Iterator[str]:
    for field in dataclasses.fields(plan):
        if field.name not in by_hand:
            yield from _rows(field.name, [words(getattr(plan, field.name))])


def _health(health: HealthPlan) -> str:
    every = "of targets that failed" if health.interval is None else f"every {_time(health.interval)}"
    return f"a check {every}, {_time(health.timeout)} to answer"


def _keep(keep: KeepPlan | None) -> str:
    if keep is None:
        return "off: each connection has a wire leg of its own"
    ahead = f"; {keep.ready} are made ahead" if keep.ready else ""
    waits = f"a wire leg waits {_time(keep.idle)} for its next connection, up to {_time(keep.max_age)} old"
    return f"{waits}, at most {keep.legs}{ahead}"


def _rows(label: str, values: list[str]) -> Iterator[str]:
    """Rows for a label: the first value is beside it, the others are below."""
    for value in values:
        yield f"  {label:<12} {value}"
        label = ""


def _limits_per_peer(tunnel: TunnelPlan) -> list[str]:
    limits = []
    if tunnel.mode is Mode.LISTEN and tunnel.places_per_peer is not None:
        limits.append(f"{tunnel.places_per_peer} connections")
    if tunnel.rate_per_peer is not None:
        limits.append(f"{tunnel.rate_per_peer} new connections a second")
    return [", ".join(limits)] if limits else []


def _deadlines(tunnel: TunnelPlan) -> str:
    idle = "never" if tunnel.idle_timeout is None else _time(tunnel.idle_timeout)
    return (
        f"handshake {_time(tunnel.handshake_timeout)}, dial {_time(tunnel.dial_timeout)}, "
        f"idle {idle}, half-closed {_time(tunnel.half_close_timeout)}"
    ) + ("" if tunnel.max_lifetime is None else f", lifetime {_time(tunnel.max_lifetime)}")


def _time(seconds: float) -> str:
    return f"{seconds:g} s"
