"""The shape of `/status`: one look at a running proxy, all workers together.

Times are seconds since 1970, spans are seconds, bytes are the applications' own. Fields are only ever added. What is counted
begins with the process and never goes down, so that the difference of two looks, divided by that of their `time`, is a rate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["starting", "ready", "draining"]


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
    """

    number: int
    pid: int
    state: Literal["starting", "ready", "draining", "silent"]
    open: int
    descriptors: int
    descriptor_limit: int
    memory: int


@dataclass(slots=True, kw_only=True)
class EngineChoice:
    """Which engine a configured choice has come to.

    Attributes:
        choice: ``auto``, ``kernel`` or ``python``.
        engine: ``kernel`` or ``python``.
        why: in words.
    """

    choice: str
    engine: str
    why: str


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

    version: str
    started: float
    uptime: float
    state: State
    workers: list[Worker]
    engines: list[EngineChoice]


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

    address: str
    health: Literal["unknown", "up", "down"] = "unknown"
    why: str = ""
    live: int = 0
    service: str = ""
    route: str = ""
    retry: float | None = None


@dataclass(slots=True, kw_only=True)
class TunnelStatus:
    """One tunnel.

    Attributes:
        name: as configured.
        mode: ``listen`` or ``connect``.
        bind: as configured.
        listening: the addresses on which it accepts, with the real port; empty when it has stopped.
        targets: where it dials: what `to` says and then its services', or its routes'.
        auth: ``keys`` or ``psk``.
        peers: names of those that it talks to; empty with a shared secret.
        engine: the engine that it asks for connections to be carried.
        why_engine: why that one.
        open: connections that have not ended.
        proving: how many of them have not proved themselves.
        relayed: how many of them carry bytes.
        max_connections, max_handshakes: their limits.
        accepted: connections so far.
        ended: relayed connections that have ended, by reason.
        refused: connections that did not come to be relayed, by reason.
        bytes_to_wire: application bytes sent to the peer so far, those of open connections among them.
        bytes_to_plain: application bytes received from the peer so far, likewise.
    """

    name: str
    mode: Literal["listen", "connect"]
    bind: str
    listening: list[str]
    targets: list[Target]
    auth: Literal["keys", "psk"]
    peers: list[str]
    engine: str
    why_engine: str
    open: int
    proving: int
    relayed: int
    max_connections: int
    max_handshakes: int
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

    tunnel: str
    worker: int
    channel: str
    client: str
    peer: str
    target: str
    engine: str
    why_engine: str
    age: float
    bytes_to_wire: int
    bytes_to_plain: int


@dataclass(slots=True, kw_only=True)
class Connections:
    """A part of the open connections.

    Attributes:
        total: how many there are.
        order: how `shown` is sorted: ``newest`` or ``busiest`` (most bytes) first.
        shown: the first of them, at most as many as were asked for.
    """

    total: int
    order: Literal["newest", "busiest"]
    shown: list[ConnectionStatus]


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

    key: str
    name: str
    own: bool
    tunnels: list[str]
    connections: int
    total: int
    last_use: float | None
    uses: dict[str, float] = field(default_factory=dict)
    may_go: Literal["yes", "no", "unknown"] = "unknown"
    why: str = ""


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
        count: how many they were.
    """

    time: float
    tunnel: str
    client: str
    peer: str
    reason: str
    why: str
    remedy: str
    count: int


@dataclass(slots=True, kw_only=True)
class Reload:
    """The last time the configuration was read again.

    Attributes:
        time: when.
        ok: whether it was applied.
        what: what has changed, in lines, or why it was not applied.
    """

    time: float
    ok: bool
    what: str


@dataclass(slots=True, kw_only=True)
class Reloads:
    """Readings of the configuration since the start.

    Attributes:
        applied: how many were applied.
        failed: how many were not, and left everything as it was.
        last: the last one; None is none yet.
    """

    applied: int = 0
    failed: int = 0
    last: Reload | None = None


@dataclass(slots=True, kw_only=True)
class Status:
    """Everything.

    Attributes:
        time: of this look.
        process: the proxy as a whole.
        tunnels: in the order of the configuration.
        connections: a part of the open ones.
        keys: own ones first.
        refusals: the last ones first, at most 50.
        reloads: readings of the configuration.
    """

    time: float
    process: Process
    tunnels: list[TunnelStatus]
    connections: Connections
    keys: list[KeyStatus]
    refusals: list[RefusalStatus]
    reloads: Reloads = field(default_factory=Reloads)
