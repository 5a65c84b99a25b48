"""What a process is to run, complete and checked: the frozen result of reading flags or a file.

Nothing here knows where it came from. The defaults of all settings stand here, once.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal

from stcp_proxy.config.token import Token
from stcp_proxy.errors import LogClass
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import Address, Destination
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.proxy_header import Version
from stcp_proxy.net.unix_socket import UNIX_MODE
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

LogFormat = Literal["text", "json"]

_RULES_FORMAT: Final = "2"
"""Changes with the text that is made of a `CapturePlan`: rules of an earlier release are outdated then."""


class Mode(enum.StrEnum):
    """Which end of the wire leg a tunnel is."""

    LISTEN = "listen"
    CONNECT = "connect"


class EngineChoice(enum.StrEnum):
    """Which engine may carry a tunnel's connections."""

    AUTO = "auto"
    KERNEL = "kernel"
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What is logged, and how it looks.

    Attributes:
        level: the least severe that is said: debug, info, warning or error.
        format: None picks text on a terminal and JSON elsewhere.
        quiet: classes of which nothing is said.
    """

    level: str = "info"
    format: LogFormat | None = None
    quiet: frozenset[LogClass] = frozenset()


class Balance(enum.StrEnum):
    """In which order a tunnel's targets are tried."""

    FAILOVER = "failover"
    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """How targets are probed.

    Attributes:
        interval: seconds between two probes of a target that answers; None probes only those that do not.
        timeout: seconds for the connection, and again for the handshake where there is one.
    """

    interval: float | None = None
    timeout: float = 1.5


@dataclass(frozen=True, slots=True)
class KeyAuth:
    """Each side proves a key of its own.

    Attributes:
        identity: ours; on the connect side the one that is tried first.
        peers: whom we talk to, and the name in logs; on the connect side the keys of exactly one name, in order of preference.
        further: other keys of ours, while one replaces the other: a listen side answers for each, a connect side tries the next
            where one is denied.
    """

    identity: PrivateKey
    peers: Mapping[PublicKey, str]
    further: tuple[PrivateKey, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Order counts: it says which key is tried first."""
        return isinstance(other, KeyAuth) and self.ring == other.ring and list(self.peers.items()) == list(other.peers.items())

    @property
    def ring(self) -> tuple[PrivateKey, ...]:
        """All keys of ours, in order."""
        return (self.identity, *self.further)


@dataclass(frozen=True, slots=True)
class PskAuth:
    """Both sides hold the same secret, which names nobody.

    Attributes:
        secret: the shared secret.
    """

    secret: Secret


@dataclass(frozen=True, slots=True)
class HandOn:
    """How connections are handed on to a target.

    Attributes:
        proxy_protocol: which header goes ahead of their bytes, if any.
        transparent: whether targets are dialled from the client's own address.
        allow_clients: client addresses that a peer may name; None for all that are not dangerous to believe.
        allow_targets: destinations that are dialled where the peer's client was going there; None where only `to` is.
    """

    proxy_protocol: Version | None = None
    allow_clients: tuple[Pattern, ...] | None = None
    allow_targets: tuple[Pattern, ...] | None = None
    transparent: bool = False

    @property
    def tells_client(self) -> bool:
        """Whether a target learns who the client is."""
        return self.proxy_protocol is not None or self.transparent


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One of several things behind a listen tunnel's port.

    Attributes:
        to: where it is; what is dialled where the client's own destination is not.
        allow: who may use it; None for whoever is admitted at all.
        hand_on: how connections are handed on.
        balance: the order in which its targets are tried.
    """

    to: tuple[Destination, ...]
    allow: frozenset[PublicKey] | None = None
    hand_on: HandOn = HandOn()
    balance: Balance = Balance.FAILOVER


@dataclass(frozen=True, slots=True)
class AcceptProxy:
    """PROXY headers are expected from whoever connects.

    Attributes:
        senders: addresses that may send one; None for all that reach the port.
    """

    senders: tuple[Pattern, ...] | None = None


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Where intercepted connections to some destinations go.

    Attributes:
        match: the destinations.
        to: addresses of the peer, in order of preference.
        auth: who the peer is.
        service: the service it is asked for, where it offers several.
    """

    match: Pattern
    to: tuple[Destination, ...]
    auth: KeyAuth | PskAuth
    service: str | None = None

    def __str__(self) -> str:
        peer = ", ".join(self.auth.peers.values()) if isinstance(self.auth, KeyAuth) else "who holds the shared secret"
        service = f", service {self.service}" if self.service else ""
        return f"{self.match} to {' or '.join(map(str, self.to))} ({peer}{service})"


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """What the rules of the host send to a tunnel.

    Attributes:
        how: by which means.
        port: where the tunnel listens.
        ip4, ip6: whether it listens for that family.
        every_interface: whether it listens on more than loopback.
        mark: SO_MARK of the proxy's own sockets; None where they carry none.
        only: destinations; None is every one.
        exclude: destinations that are left alone all the same.
        peers: addresses of the peers, as far as the file has numbers for them: left alone too.
        forwarded: interfaces whose traffic to elsewhere is sent to the tunnel as well.
    """

    how: Interception
    port: int
    ip4: bool
    ip6: bool
    every_interface: bool
    mark: int | None
    only: tuple[Pattern, ...] | None
    exclude: tuple[Pattern, ...]
    peers: tuple[Pattern, ...]
    forwarded: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits: rules with another digest are not those for this plan."""
        values = (getattr(self, field.name) for field in fields(self))
        words = (",".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
        return hashlib.sha256("\n".join((_RULES_FORMAT, *words)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class InterceptPlan:
    """A tunnel that takes what rules of the host send it.

    Attributes:
        routes: the first that covers a destination decides.
        pass_unmatched: whether what no route covers is passed on unencrypted; refused otherwise.
        capture: what the rules send.
    """

    routes: tuple[RoutePlan, ...]
    pass_unmatched: bool
    capture: CapturePlan


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """One tunnel, complete and checked.

    Attributes:
        name: in logs and metrics.
        mode: which end of the wire leg this is.
        bind: where it accepts.
        to: where it dials, with interception every address of every route; empty where a listen tunnel has nothing for peers that
            name no service, or dials original destinations alone.
        auth: who may talk to whom; on the listen side whoever may use anything here.
        suites: exactly one for connect, all that are accepted for listen.
        engine: which engine may carry its connections.
        max_connections: accepted and not ended, handshakes included.
        max_handshakes: accepted and not yet proved.
        handshake_timeout: seconds from accept (or dial) to the peer's proof.
        dial_timeout: seconds for the whole dial, names included.
        idle_timeout: seconds without a byte in either direction; None is no limit.
        half_close_timeout: the same once one direction has ended.
        allow: who may be handed on to `to`; None for whoever is admitted at all.
        hand_on: how connections are handed on to `to`.
        services: what else a listen tunnel offers, by name.
        service: what a connect tunnel asks for; None for the peer's `to`.
        accept_proxy: whether a connect tunnel expects PROXY headers, and from whom.
        ready_by_target: whether it counts as ready only while its far target answers.
        bind_mode: mode of the file where `bind` is a unix socket: who may write to it may connect.
        freebind: whether `bind` may be an address that no interface has yet.
        balance: the order in which the targets of `to` are tried.
        intercept: routes of a tunnel that takes what rules send it; None for any other.
        health: how they are probed.
    """

    name: str
    mode: Mode
    bind: Address
    to: tuple[Destination, ...]
    auth: KeyAuth | PskAuth
    suites: tuple[Suite, ...]
    engine: EngineChoice = EngineChoice.AUTO
    max_connections: int = 10_000
    max_handshakes: int = 256
    handshake_timeout: float = 10.0
    dial_timeout: float = 10.0
    idle_timeout: float | None = None
    half_close_timeout: float = 900.0
    bind_mode: int = UNIX_MODE
    freebind: bool = False
    balance: Balance = Balance.FAILOVER
    allow: frozenset[PublicKey] | None = None
    hand_on: HandOn = HandOn()
    services: Mapping[str, ServicePlan] = field(default_factory=dict)
    service: str | None = None
    accept_proxy: AcceptProxy | None = None
    intercept: InterceptPlan | None = None
    health: HealthPlan = HealthPlan()
    ready_by_target: bool = False


@dataclass(frozen=True, slots=True)
class AdminPlan:
    """Where a running proxy can be looked into.

    Attributes:
        address: where it answers.
        token: what a request has to bring along; None asks for none, which only this machine's own addresses may do.
    """

    address: Address
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one process runs.

    Attributes:
        tunnels: at least one.
        drain: seconds that connections may take to finish after a stop.
        drain_outbound: ``keep`` where connect tunnels go on accepting during the drain, until no listen tunnel has a connection.
        revoke_grace: seconds that connections may go on whose key has been taken out of the file.
        workers: processes that share the load.
        log: what is logged, and how it looks.
        admin: where it can be looked into; None is nowhere.
        dns: how names are looked up; its defaults stand beside the resolver.
        whole: whether the file says with YAML's end mark, `...`, that nothing behind it was cut off.
        known: every public key that is named anywhere, own ones among them, used or not.
    """

    tunnels: tuple[TunnelPlan, ...]
    drain: float = 30.0
    drain_outbound: Literal["stop", "keep"] = "stop"
    revoke_grace: float = 0.0
    workers: int = 1
    log: LogPlan = LogPlan()
    admin: AdminPlan | None = None
    dns: DnsSettings = field(default_factory=DnsSettings)
    whole: bool = field(default=False, compare=False)
    known: frozenset[PublicKey] = field(default=frozenset(), compare=False)
