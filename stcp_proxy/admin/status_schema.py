"""The shape of `/status`: a snapshot of a running proxy, all worker processes together.

Times are seconds since 1970, spans are seconds, bytes are the applications' own. Fields are only ever added. What is counted
begins with the process and never goes down, so that the difference of two looks, divided by that of their `time`, is a rate.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

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

State = Literal["starting", "ready", "draining"]
Rules = Literal["", "current", "outdated", "missing", "unknown"]

_HEALTH_RANK: Final = {"unknown": 0, "down": 1, "up": 2}
_OF_HEALTHIEST: Final = of_best(lambda target: _HEALTH_RANK[target.health])
"""A worker that has reached a target knows more of it than one that has not."""
_OF_LATEST: Final = of_best(lambda refusal: refusal.time)
_OF_LAST_RELOAD: Final = of_best(lambda reloads: reloads.last.time if reloads.last is not None else 0.0)


def _state(parts: Sequence[Any], name: str) -> State:
    return state_of({getattr(part, name) for part in parts})


def state_of(states: set[str]) -> State:
    """The state of a proxy by those of its workers."""
    return "draining" if "draining" in states else "ready" if states == {"ready"} else "starting"


_STATE: Final = Merge(_state)


def _kind(refusal: RefusalStatus) -> Hashable:
    """What refusals of one kind have in common: the client's host without its port."""
    return (refusal.tunnel, refusal.client.rpartition(":")[0], refusal.reason, refusal.why, refusal.key)


@dataclass(slots=True, kw_only=True)
class Worker:
    """One process.

    Attributes:
        number: 0 to the number of workers less one.
        pid: its process id; 0 where it does not answer.
        state: how far it is; ``silent`` where it does not answer.
        open: connections that have not ended.
        descriptors: file descriptors in use.
        descriptor_limit: how many it may have.
        memory: resident bytes.
        started: when the process started.
        cpu: processor time that it has used.
        log_lines_dropped: log lines that it could not write without waiting for their reader.
    """

    number: Annotated[int, FIRST]
    pid: Annotated[int, FIRST]
    state: Annotated[Literal["starting", "ready", "draining", "silent"], FIRST]
    open: Annotated[int, FIRST]
    descriptors: Annotated[int, FIRST]
    descriptor_limit: Annotated[int, FIRST]
    memory: Annotated[int, FIRST]
    started: Annotated[float, FIRST] = 0.0
    cpu: Annotated[float, FIRST] = 0.0
    log_lines_dropped: Annotated[int, FIRST] = 0


@dataclass(slots=True, kw_only=True)
class EngineChoice:
    """Which engine a configured choice has come to.

    Attributes:
        choice: ``auto``, ``kernel`` or ``python``.
        engine: ``kernel`` or ``python``.
        why: in words.
    """

    choice: Annotated[str, FIRST]
    engine: Annotated[str, FIRST]
    why: Annotated[str, FIRST]


@dataclass(slots=True, kw_only=True)
class Process:
    """The proxy as a whole.

    Attributes:
        version: of stcp-proxy.
        started: when.
        uptime: for how long it has run.
        state: ``ready`` when every worker is, ``draining`` when one is.
        workers: every process that serves.
        engines: what each configured choice of an engine has come to.
    """

    version: Annotated[str, FIRST]
    started: Annotated[float, MIN]
    uptime: Annotated[float, MAX]
    state: Annotated[State, _STATE]
    workers: Annotated[list[Worker], CONCATENATED]
    engines: Annotated[list[EngineChoice], by(lambda engine: (engine.choice, engine.engine, engine.why))]


@dataclass(slots=True, kw_only=True)
class Target:
    """An address that a tunnel dials.

    Attributes:
        address: a concrete one where names have been looked up, otherwise as configured.
        service: the tunnel's service that is there; empty where it is none's.
        route: what the route to it covers, in a tunnel that intercepts; empty elsewhere.
        health: how it fared the last time; ``unknown`` before it was tried.
        why: what is wrong with it; empty otherwise.
        live: connections that are on their way to it or open.
        retry: seconds until it is tried in its place again, where it is down; None elsewhere.
    """

    address: Annotated[str, FIRST]
    health: Annotated[Literal["unknown", "up", "down"], _OF_HEALTHIEST] = "unknown"
    why: Annotated[str, _OF_HEALTHIEST] = ""
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
        bind: as configured.
        listening: the addresses on which it accepts, with the real port; empty when it has stopped.
        lost: unix sockets whose file was removed or replaced, so that nobody can connect; a reload binds them anew.
        targets: where it dials: what `to` says and then its services', or its routes'.
        auth: ``keys`` or ``psk``.
        peers: names of those that it talks to; empty with a shared secret.
        engine: the engine that it asks for connections to be carried.
        why_engine: why that one.
        open: connections that have not ended.
        proving: how many of them have not proved themselves.
        relayed: how many of them carry bytes.
        max_connections, max_handshakes: their limits.
        rules: which rules of interception the host has, compared with the file's; empty where the tunnel does not intercept.
    """

    name: Annotated[str, FIRST]
    mode: Annotated[Literal["listen", "connect"], FIRST]
    bind: Annotated[str, FIRST]
    listening: Annotated[list[str], UNION]
    lost: Annotated[list[str], UNION] = field(default_factory=list)
    targets: Annotated[list[Target], by(lambda target: (target.service, target.route, target.address))]
    auth: Annotated[Literal["keys", "psk"], FIRST]
    peers: Annotated[list[str], FIRST]
    engine: Annotated[str, FIRST]
    why_engine: Annotated[str, FIRST]
    open: Annotated[int, SUM]
    proving: Annotated[int, SUM]
    relayed: Annotated[int, SUM]
    max_connections: Annotated[int, SUM]
    max_handshakes: Annotated[int, SUM]
    rules: Annotated[Rules, FIRST] = ""


@dataclass(slots=True, kw_only=True)
class TunnelStatus(TunnelState):
    """One tunnel, as `/status` has it.

    Attributes:
        accepted: connections so far.
        ended: relayed connections that have ended, by reason.
        refused: connections that were not relayed, by reason.
        bytes_to_wire: application bytes sent to the peer so far, those of open connections included.
        bytes_to_plain: application bytes received from the peer so far, likewise.
    """

    accepted: int
    ended: dict[str, int]
    refused: dict[str, int]
    bytes_to_wire: int
    bytes_to_plain: int


@dataclass(slots=True, kw_only=True)
class ConnectionStatus:
    """One open connection.

    Attributes:
        tunnel: its tunnel's name.
        worker: the process that carries it.
        channel: the id that both sides log; empty before the handshake.
        client: address of whoever connected.
        peer: the peer's configured name; empty before it has proved itself.
        target: address that was dialled; empty before that.
        engine: who carries it; empty while it is being opened.
        why_engine: why another engine than the tunnel's; empty as a rule.
        age: since it was accepted.
        bytes_to_wire, bytes_to_plain: so far.
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
        total: how many there are.
        order: how `shown` is sorted: ``newest`` or ``busiest`` (most bytes) first.
        shown: the first of them, at most as many as were asked for.
    """

    total: Annotated[int, SUM]
    order: Annotated[Literal["newest", "busiest"], FIRST]
    shown: Annotated[list[ConnectionStatus], CONCATENATED]


@dataclass(slots=True, kw_only=True)
class KeyStatus:
    """A public key, this side's own or a peer's.

    Attributes:
        key: its text, ``stcp-pub:…``.
        name: the peer's configured name; ``(own)`` for this side's.
        own: whether it is this side's.
        tunnels: names of the tunnels that use or admit it.
        connections: open ones that it has opened.
        total: handshakes that it has proved itself in, so far.
        last_use: when that was last; None is not since the start.
        uses: when it last met each peer that it may meet, by name; 0 is not since the start.
        may_go: whether it can be taken out of the file without loss: ``yes``, ``no``, or ``unknown`` while nothing shows it.
        why: in words.
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
    """Connections that were turned away for one reason, from one host.

    Attributes:
        time: of the last one.
        tunnel: the tunnel's name.
        client: address of whoever connected last.
        peer: its configured name; empty where it has proved nothing.
        reason: the label that logs and metrics have.
        why: in a sentence.
        remedy: what to do about it; may be empty.
        key: the public key that the peer has proved and no rule allows; empty otherwise.
        count: how many they were.
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


@dataclass(slots=True, kw_only=True)
class Reload:
    """The last time the configuration was read again.

    Attributes:
        time: when.
        ok: whether it was applied.
        what: what has changed, in lines, or why it was not applied.
    """

    time: Annotated[float, FIRST]
    ok: Annotated[bool, FIRST]
    what: Annotated[str, FIRST]


@dataclass(slots=True, kw_only=True)
class Reloads:
    """Readings of the configuration since the start.

    Attributes:
        applied: how many were applied.
        failed: how many were not, and left everything as it was.
        last: the last one; None is none yet.
    """

    applied: Annotated[int, MAX] = 0
    failed: Annotated[int, MAX] = 0
    last: Annotated[Reload | None, _OF_LAST_RELOAD] = None


@dataclass(slots=True, kw_only=True)
class Overview:
    """What `/status` and the report of a worker have in common.

    Attributes:
        time: of the snapshot.
        process: the proxy as a whole.
        connections: a part of the open ones.
        keys: own ones first.
        refusals: the last ones first, at most 50.
        reloads: reloads since the start.
    """

    time: Annotated[float, MAX]
    process: Annotated[Process, NESTED]
    connections: Annotated[Connections, NESTED]
    keys: Annotated[list[KeyStatus], by(lambda key: (key.own, key.key))]
    refusals: Annotated[list[RefusalStatus], by(_kind)]
    reloads: Annotated[Reloads, NESTED] = field(default_factory=Reloads)


@dataclass(slots=True, kw_only=True)
class Status(Overview):
    """`/status`.

    Attributes:
        tunnels: in the order of the configuration.
    """

    tunnels: list[TunnelStatus]
