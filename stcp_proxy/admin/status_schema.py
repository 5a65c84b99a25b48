"""The shape of `/status`: a snapshot of a running proxy, all worker processes together.

Times are seconds since 1970, durations are seconds, and byte counts are application bytes. Later versions only add fields. A
counter starts at 0 with the process and never goes down. So the difference between two snapshots, divided by the difference of
their `time`, is a rate.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from stcp_proxy.admin.certificate_schema import CertificateStatus, PeerCertificate
from stcp_proxy.admin.process_schema import Process
from stcp_proxy.admin.verdict_schema import Level, Verdict
from stcp_proxy.counters.merging import (
    CONCATENATED,
    FIRST,
    LATEST,
    MAX,
    MAX_EACH,
    MIN,
    NESTED,
    SUM,
    UNION,
    Merge,
    by,
    of_best,
)

Rules = Literal["", "current", "outdated", "missing", "unknown"]
EgressFilter = Literal["", "attached", "missing", "hidden", "unknown"]

_HEALTH_RANK: Final = {"unknown": 0, "down": 1, "up": 2}
_OF_HEALTHIEST: Final = of_best(lambda target: _HEALTH_RANK[target.health])
"""The order of the values when reports merge: a worker process that has tried a target knows more than one that has not."""
_OF_LATEST: Final = of_best(lambda refusal: refusal.time)
_OF_LAST_RELOAD: Final = of_best(lambda reloads: reloads.last.time if reloads.last is not None else 0.0)


def _served(parts: Sequence[Any], name: str) -> float | None:
    """When refusals are over: a connection that one worker process served later ends the refusals of all worker processes."""
    served = max((getattr(part, name) for part in parts if getattr(part, name) is not None), default=None)
    return served if served is not None and served >= max(part.time for part in parts) else None


_SERVED: Final = Merge(_served)


def _kind(refusal: RefusalStatus) -> Hashable:
    """The key for merging refusals: refusals of one kind have the same key. It has the client's host without the port."""
    return (refusal.tunnel, refusal.client.rpartition(":")[0], refusal.reason, refusal.why, refusal.key)


@dataclass(slots=True, kw_only=True)
class Target:
    """An address that a tunnel dials.

    Attributes:
        address: the resolved address; without a result of the look-up, the address as configured.
        service: the name of the tunnel's service with this target; empty without a service.
        route: the destinations of the route to this target, in an intercepting tunnel; empty elsewhere.
        health: the result of the last attempt or health check; ``unknown`` before the first.
        why: the last failure; empty while the target is healthy.
        remedy: what to do about it; empty while the target is healthy.
        since: when an unhealthy target failed first; None for other targets.
        live: attempts and open connections to it.
        retry: seconds until an unhealthy target returns to its place in the order; None for other targets.
    """

    address: Annotated[str, FIRST]
    health: Annotated[Literal["unknown", "up", "down"], _OF_HEALTHIEST] = "unknown"
    why: Annotated[str, _OF_HEALTHIEST] = ""
    remedy: Annotated[str, _OF_HEALTHIEST] = ""
    since: Annotated[float | None, _OF_HEALTHIEST] = None
    live: Annotated[int, SUM] = 0
    service: Annotated[str, FIRST] = ""
    route: Annotated[str, FIRST] = ""
    retry: Annotated[float | None, _OF_HEALTHIEST] = None


@dataclass(slots=True, kw_only=True)
class TunnelState:
    """One tunnel: its configuration, and its state now.

    Attributes:
        name: as configured.
        mode: ``listen`` or ``connect``.
        bind: the listening address as configured.
        listening: the listening addresses, with the real port; empty after the tunnel has stopped.
        lost: unix sockets whose file was removed or replaced, so that clients cannot connect; a reload binds them again.
        targets: its targets: first those of `to`, then those of its services or routes.
        auth: ``keys``, ``psk``, ``certificates``, or ``keys and certificates``.
        peers: the names of its peers, and patterns for names of certificates; empty with a shared secret.
        engine: the engine that the tunnel has selected for its connections.
        why_engine: the reason for this engine.
        open: live connections.
        proving: unauthenticated connections among them.
        relayed: connections among them that an engine carries.
        idle_legs: wire legs that wait for their next connection; they are not among the live connections.
        max_connections, max_handshakes: the limits of `open` and `proving`.
        rules: the state of the host's interception rules, compared with the file; empty where the tunnel does not intercept.
        egress_filter: the state of the host's egress filter; empty where it is not wanted.
        egress_interfaces: the interfaces that lack it, or where the filter of another program comes before it.
        audit_until: the end of the audit mode of its access rule; None where the rule refuses.
    """

    name: Annotated[str, FIRST]
    mode: Annotated[Literal["listen", "connect"], FIRST]
    bind: Annotated[str, FIRST]
    listening: Annotated[list[str], UNION]
    lost: Annotated[list[str], UNION] = field(default_factory=list)
    targets: Annotated[list[Target], by(lambda target: (target.service, target.route, target.address))]
    auth: Annotated[Literal["keys", "psk", "certificates", "keys and certificates"], FIRST]
    peers: Annotated[list[str], FIRST]
    engine: Annotated[str, FIRST]
    why_engine: Annotated[str, FIRST]
    open: Annotated[int, SUM]
    proving: Annotated[int, SUM]
    relayed: Annotated[int, SUM]
    idle_legs: Annotated[int, SUM] = 0
    max_connections: Annotated[int, SUM]
    max_handshakes: Annotated[int, SUM]
    rules: Annotated[Rules, FIRST] = ""
    egress_filter: Annotated[EgressFilter, FIRST] = ""
    egress_interfaces: Annotated[list[str], FIRST] = field(default_factory=list)
    audit_until: Annotated[float | None, FIRST] = None


@dataclass(slots=True, kw_only=True)
class TunnelStatus(TunnelState):
    """One tunnel in `/status`.

    Attributes:
        accepted: accepted connections so far.
        ended: relayed connections that have ended, by reason.
        refused: connections that were not relayed, by reason.
        audited: connections that audit mode admitted, by the label of the refusal that it took the place of.
        legs: connections handed to an engine, by their wire leg: ``new``, or ``kept`` from an earlier connection.
        bytes_to_wire: application bytes sent to the peer so far, including those of open connections.
        bytes_to_plain: application bytes received from the peer so far, including those of open connections.
        state: its state in a word or two, for example ``serving``.
        level: how bad that is.
    """

    accepted: int
    ended: dict[str, int]
    refused: dict[str, int]
    legs: dict[str, int]
    bytes_to_wire: int
    bytes_to_plain: int
    state: str = ""
    level: Level = "ok"
    audited: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ConnectionStatus:
    """One open connection.

    Attributes:
        tunnel: its tunnel's name.
        worker: the number of the worker process that carries it.
        channel: the channel id, which both sides log; empty before the handshake.
        client: address of the client.
        peer: the peer's configured name; empty before the peer has proved its key.
        target: the dialled address; empty before the dial.
        engine: the engine that carries it; empty before the handover.
        why_engine: the reason why the engine differs from the tunnel's; empty when it does not differ.
        age: seconds since the accept.
        bytes_to_wire, bytes_to_plain: application bytes in each direction so far.
    """

    tunnel: Annotated[str, FIRST]
    worker: Annotated[int, FIRST]
    channel: Annotated[str, FIRST]
    client: Annotated[str, FIRST]
    peer: Annotated[str, FIRST]
    target: Annotated[str, FIRST]
    engine: Annotated[str, FIRST]
    why_engine: Annotated[str, FIRST]
    age: Annotated[float, FIRST]
    bytes_to_wire: Annotated[int, FIRST]
    bytes_to_plain: Annotated[int, FIRST]


@dataclass(slots=True, kw_only=True)
class Connections:
    """A part of the open connections.

    Attributes:
        total: the number of all open connections.
        order: the order of `shown`: ``newest`` or ``busiest`` (most bytes) first.
        shown: the first connections in this order, at most as many as requested.
    """

    total: Annotated[int, SUM]
    order: Annotated[Literal["newest", "busiest"], FIRST]
    shown: Annotated[list[ConnectionStatus], CONCATENATED]


@dataclass(slots=True, kw_only=True)
class KeyStatus:
    """A public key of this side or of a peer.

    Attributes:
        key: its text, ``stcp-pub:…``.
        name: the peer's configured name; ``(own)`` for a key of this side.
        own: whether it is a key of this side.
        tunnels: names of the tunnels that use or admit it.
        connections: open connections that use it.
        total: successful handshakes with it so far.
        last_use: the time of the last of these handshakes; None without any since the start.
        uses: for each peer that may use it, by name, the time of the last handshake; 0 without any since the start.
        may_go: whether it can be removed from the file without loss: ``yes``, ``no``, or ``unknown`` while there is no evidence.
        why: the reason, in words.
    """

    key: Annotated[str, FIRST]
    name: Annotated[str, FIRST]
    own: Annotated[bool, FIRST]
    tunnels: Annotated[list[str], UNION]
    connections: Annotated[int, SUM]
    total: Annotated[int, SUM]
    last_use: Annotated[float | None, LATEST]
    uses: Annotated[dict[str, float], MAX_EACH] = field(default_factory=dict)
    may_go: Annotated[Literal["yes", "no", "unknown"], FIRST] = "unknown"
    why: Annotated[str, FIRST] = ""


@dataclass(slots=True, kw_only=True)
class RefusalStatus:
    """Refused connections with one reason from one host.

    Attributes:
        time: the time of the last refusal.
        tunnel: the tunnel's name.
        client: address of the last client.
        peer: the peer's configured name; empty when the peer has proved no key.
        reason: the label in logs and metrics.
        why: the reason, in a sentence.
        remedy: what to do; may be empty.
        key: the public key that the peer has proved and that no rule allows; empty otherwise.
        count: the number of refusals.
        first: the time of the first refusal.
        level: ``bad`` for a bug of this program, ``note`` for what any stranger can cause, else ``warn``.
        is_target: whether the failure is that of a target of this tunnel, which has it too.
        served: the time when a later connection from this host was served, or when a reload admitted the key; None while neither
            has happened.
    """

    time: Annotated[float, MAX]
    tunnel: Annotated[str, FIRST]
    client: Annotated[str, _OF_LATEST]
    peer: Annotated[str, _OF_LATEST]
    reason: Annotated[str, FIRST]
    why: Annotated[str, FIRST]
    remedy: Annotated[str, FIRST]
    key: Annotated[str, FIRST] = ""
    count: Annotated[int, SUM]
    first: Annotated[float, MIN] = 0.0
    level: Annotated[Level, FIRST] = "warn"
    is_target: Annotated[bool, FIRST] = False
    served: Annotated[float | None, _SERVED] = None


@dataclass(slots=True, kw_only=True)
class Reload:
    """The last reload.

    Attributes:
        time: the time of the reload.
        ok: whether it was applied.
        what: the changes, one line each, or the reason for the refusal.
    """

    time: Annotated[float, FIRST]
    ok: Annotated[bool, FIRST]
    what: Annotated[str, FIRST]


@dataclass(slots=True, kw_only=True)
class Reloads:
    """The reloads since the start.

    Attributes:
        applied: the number of applied reloads.
        failed: the number of refused reloads, which changed nothing.
        last: the last reload; None before the first.
    """

    applied: Annotated[int, MAX] = 0
    failed: Annotated[int, MAX] = 0
    last: Annotated[Reload | None, _OF_LAST_RELOAD] = None


@dataclass(slots=True, kw_only=True)
class Overview:
    """The common part of `/status` and the report of a worker process.

    Attributes:
        time: the time of the snapshot.
        process: the proxy as a whole.
        connections: a part of the open connections.
        keys: own keys first.
        refusals: the latest first, at most 50.
        certificates: certificates of this side, authorities and revocation lists.
        peer_certificates: certificates of peers with open connections: those with most connections first, at most 100.
        connections_of_others: open connections by certificates that `peer_certificates` leaves out.
        reloads: reloads since the start.
    """

    time: Annotated[float, MAX]
    process: Annotated[Process, NESTED]
    connections: Annotated[Connections, NESTED]
    keys: Annotated[list[KeyStatus], by(lambda key: (key.own, key.key))]
    refusals: Annotated[list[RefusalStatus], by(_kind)]
    certificates: Annotated[
        list[CertificateStatus], by(lambda each: (each.kind, each.name, each.subject, each.serial, each.not_after))
    ] = field(default_factory=list)
    peer_certificates: Annotated[
        list[PeerCertificate], by(lambda each: (each.name, each.authority, each.serial, each.not_after))
    ] = field(default_factory=list)
    connections_of_others: Annotated[int, SUM] = 0
    reloads: Annotated[Reloads, NESTED] = field(default_factory=Reloads)


@dataclass(slots=True, kw_only=True)
class Status(Overview):
    """`/status`.

    Attributes:
        tunnels: in the order of the configuration.
        verdict: what is wrong, since when, and what to do.
    """

    tunnels: list[TunnelStatus]
    verdict: Verdict = field(default_factory=Verdict)
