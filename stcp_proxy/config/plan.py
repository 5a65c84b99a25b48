"""The plan of a process, complete and checked: the frozen result of reading flags or a file.

The plan does not depend on its source. The defaults of all settings are defined here, once.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal

from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.config.audit import Audit
from stcp_proxy.config.auth_plan import Admitted, KeyAuth, PskAuth
from stcp_proxy.config.certificate_plan import Trusted
from stcp_proxy.config.otlp_plan import OtlpPlan
from stcp_proxy.config.token import Token
from stcp_proxy.errors import LogClass
from stcp_proxy.keys import PublicKey
from stcp_proxy.net.address import Address, Destination, UnixAddress
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import Pattern
from stcp_proxy.net.proxy_header import Version
from stcp_proxy.net.unix_socket import UNIX_MODE
from stcp_proxy.protocol.wire import Suite

LogFormat = Literal["text", "json"]

_RULES_FORMAT: Final = "3"
"""Version of the rules' text for a `CapturePlan`. A new version makes installed rules of an earlier release outdated."""


class Mode(enum.StrEnum):
    """The end of the wire leg at which a tunnel is."""

    LISTEN = "listen"
    CONNECT = "connect"


class EngineChoice(enum.StrEnum):
    """The choice of the engine that carries a tunnel's connections."""

    AUTO = "auto"
    KERNEL = "kernel"
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class LogPlan:
    """The selection and the format of log lines.

    Attributes:
        level: the lowest level that is logged: debug, info, warning or error.
        format: None means text on a terminal and JSON elsewhere.
        quiet: classes of lines that are not logged.
    """

    level: str = "info"
    format: LogFormat | None = None
    quiet: frozenset[LogClass] = frozenset()


class Balance(enum.StrEnum):
    """The order in which a tunnel's targets are tried."""

    FAILOVER = "failover"
    ROUND_ROBIN = "round-robin"
    LEAST_CONNECTIONS = "least-connections"


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """The health checks of targets.

    Attributes:
        interval: seconds between two checks of a healthy target; None checks only unhealthy ones.
        timeout: seconds for the connection, and again for the handshake if there is one.
    """

    interval: float | None = None
    timeout: float = 1.5


@dataclass(frozen=True, slots=True)
class HandOn:
    """The way in which connections are handed on to a target.

    Attributes:
        proxy_protocol: the version of the PROXY header before the application's bytes; None for no header.
        transparent: whether targets are dialled from the client's own address.
        allow_clients: client addresses that a peer may report; None for all that are safe to accept.
        allow_targets: original destinations that may be dialled; None where only `to` is dialled.
    """

    proxy_protocol: Version | None = None
    allow_clients: tuple[Pattern, ...] | None = None
    allow_targets: tuple[Pattern, ...] | None = None
    transparent: bool = False

    @property
    def tells_client(self) -> bool:
        """Whether a target learns the client's address."""
        return self.proxy_protocol is not None or self.transparent


@dataclass(frozen=True, slots=True)
class KeepPlan:
    """How wire legs are kept for the next connection.

    Attributes:
        idle: seconds for which a leg waits for its next connection.
        max_age: seconds after its handshake from which a leg carries no further connection.
        legs: the largest number of waiting legs for each peer; on the connect side for each address of a peer.
        ready: how many legs of a connect tunnel wait for the first connections, for each address of its peer.
    """

    idle: float = 30.0
    max_age: float = 600.0
    legs: int = 32
    ready: int = 0


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service of a listen tunnel.

    Attributes:
        to: its targets, dialled where the original destination is not.
        allow: the peers that may use it; None for every admitted peer.
        hand_on: how connections are handed on.
        balance: the order in which its targets are tried.
    """

    to: tuple[Destination, ...]
    allow: frozenset[Admitted] | None = None
    hand_on: HandOn = HandOn()
    balance: Balance = Balance.FAILOVER


@dataclass(frozen=True, slots=True)
class AcceptProxy:
    """The rule for PROXY headers from clients of a connect tunnel.

    Attributes:
        senders: addresses that may send a header; None for all addresses.
    """

    senders: tuple[Pattern, ...] | None = None


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """The peer for intercepted connections to some destinations.

    Attributes:
        match: the destinations.
        to: addresses of the peer, in order of preference.
        auth: the authentication of the peer.
        service: the requested service of the peer, where the peer offers several.
    """

    match: Pattern
    to: tuple[Destination, ...]
    auth: KeyAuth | PskAuth
    service: str | None = None

    def __str__(self) -> str:
        peer = ", ".join(self.auth.peer_names) if isinstance(self.auth, KeyAuth) else "a holder of the shared secret"
        service = f", service {self.service}" if self.service else ""
        return f"{self.match} to {' or '.join(map(str, self.to))} ({peer}{service})"


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """The traffic that the rules of the host send to a tunnel.

    Attributes:
        how: the method of capture.
        port: the port on which the tunnel listens.
        ip4, ip6: whether the tunnel listens for this family.
        every_interface: whether the tunnel listens on interfaces besides loopback.
        mark: SO_MARK of the proxy's own sockets; None without a mark.
        only: the captured destinations; None means all.
        exclude: destinations that are never captured.
        peers: addresses of the peers, which are never captured; only numeric addresses of the file.
        forwarded: interfaces whose forwarded traffic is captured as well.
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
        """Twelve hexadecimal digits of a hash. Rules with a different digest belong to a different plan."""
        values = (getattr(self, field.name) for field in fields(self))
        words = (",".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in values)
        return hashlib.sha256("\n".join((_RULES_FORMAT, *words)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class InterceptPlan:
    """The plan of an intercepting tunnel.

    Attributes:
        routes: the first route that covers a destination decides.
        pass_unmatched: whether connections without a route are passed on unencrypted; otherwise they are refused.
        capture: the traffic that the rules send to the tunnel.
    """

    routes: tuple[RoutePlan, ...]
    pass_unmatched: bool
    capture: CapturePlan


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """One tunnel, complete and checked.

    Attributes:
        name: the name in logs and metrics.
        mode: the end of the wire leg at which the tunnel is.
        bind: the listening address.
        to: the targets; with interception every address of every route. Empty where a listen tunnel has only services, or dials
            only original destinations.
        auth: the keys or the secret of both sides; on the listen side with all peers that may use anything here.
        suites: exactly one for connect; all accepted suites for listen.
        engine: which engine may carry its connections.
        max_connections: the largest number of live connections, handshakes included.
        max_handshakes: the largest number of unauthenticated connections.
        max_connections_per_peer: the largest number of live connections of one peer; None for the default, `places_per_peer`.
        rate_per_peer: the largest number of new connections of one peer in a second; None for no limit.
        handshake_timeout: seconds from accept (or dial) to the peer's proof.
        dial_timeout: seconds for the whole dial, names included.
        idle_timeout: seconds without a byte in either direction; None means no limit.
        half_close_timeout: the idle timeout after one direction has ended.
        max_lifetime: seconds from accept after which a connection is ended, busy or not; None means no limit.
        allow: the peers that may use `to`; None for every admitted peer.
        hand_on: how connections are handed on to `to`.
        services: the services of a listen tunnel, by name.
        service: the service that a connect tunnel requests; None for the peer's `to`.
        accept_proxy: the rule for PROXY headers of a connect tunnel; None where it expects no header.
        ready_by_target: whether the tunnel is ready only while its far target answers.
        bind_mode: file mode of the unix socket in `bind`: write permission allows a client to connect.
        freebind: whether `bind` may be an address that no interface has yet.
        balance: the order in which the targets of `to` are tried.
        intercept: the plan of an intercepting tunnel; None for other tunnels.
        health: the health checks of its targets.
        keep: how its wire legs are kept for the next connection; None where each connection has a leg of its own.
    """

    name: str
    mode: Mode
    bind: Address
    to: tuple[Destination, ...]
    auth: KeyAuth | PskAuth
    suites: tuple[Suite, ...]
    engine: EngineChoice = EngineChoice.AUTO
    max_connections: int = 10_000
    max_handshakes: int = 4096
    max_connections_per_peer: int | None = None
    rate_per_peer: int | None = None
    handshake_timeout: float = 10.0
    dial_timeout: float = 10.0
    idle_timeout: float | None = None
    half_close_timeout: float = 900.0
    max_lifetime: float | None = None
    bind_mode: int = UNIX_MODE
    freebind: bool = False
    balance: Balance = Balance.FAILOVER
    allow: frozenset[Admitted] | None = None
    hand_on: HandOn = HandOn()
    services: Mapping[str, ServicePlan] = field(default_factory=dict)
    service: str | None = None
    accept_proxy: AcceptProxy | None = None
    intercept: InterceptPlan | None = None
    health: HealthPlan = HealthPlan()
    ready_by_target: bool = False
    keep: KeepPlan | None = KeepPlan()

    @property
    def audit(self) -> Audit | None:
        """The audit mode of its access rule; None where the rule refuses."""
        return self.auth.audit if isinstance(self.auth, KeyAuth) else None

    @property
    def places_per_peer(self) -> int | None:
        """The largest number of live connections of one peer; None for no limit.

        By default a peer leaves a tenth of the places to others, where there may be others.
        """
        if self.max_connections_per_peer is not None:
            return self.max_connections_per_peer
        auth = self.auth
        if isinstance(auth, KeyAuth) and (auth.certificates or auth.audit or len(set(auth.peers.values())) > 1):
            return max(1, self.max_connections - -(-self.max_connections // 10))
        return None


@dataclass(frozen=True, slots=True)
class AdminPlan:
    """The admin address of a proxy.

    Attributes:
        address: the listening address.
        token: the token that requests must carry; None needs no token and is allowed only for local addresses.
    """

    address: Address
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one process runs.

    Attributes:
        tunnels: the tunnels; at least one where there is no agent.
        agent: the agent of kernel sockets; None without one.
        drain: seconds that connections may take to finish after a stop.
        drain_outbound: ``keep`` where connect tunnels continue to accept during the drain, until no listen tunnel has a
            connection.
        revoke_grace: seconds until the connections of a revoked key are ended.
        workers: the number of worker processes.
        stalled_mib: MiB that all connections may hold for stalled readers before reads become short.
        watch: seconds between two looks at the files of the configuration; None without a watch.
        takeover: the unix socket at which a new process takes over; None where none can.
        takeover_drain: seconds that connections may take to finish after that.
        sandbox: whether the process restricts itself to the files that it needs: where the kernel can, always, or never.
        log: the selection and the format of log lines.
        admin: the admin address; None without one.
        dns: the settings for name look-ups; their defaults are in the resolver's module.
        otlp: where the spans of connections go; None for no spans.
        whole: whether the file ends with YAML's end mark, `...`, which proves that nothing was cut off.
        known: every public key in the configuration, own keys included, used or unused, without those that are revoked.
        trusted: the authorities of the configuration, and what is revoked.
        included: the public keys from peer directories, with the names of their peers.
        inputs: digests of the files that the plan was made of, by path; ``inputs`` makes them.
    """

    tunnels: tuple[TunnelPlan, ...]
    agent: AgentPlan | None = None
    drain: float = 30.0
    drain_outbound: Literal["stop", "keep"] = "stop"
    revoke_grace: float = 0.0
    workers: int = 1
    stalled_mib: int = 64
    watch: float | None = None
    takeover: UnixAddress | None = None
    takeover_drain: float = 3600.0
    sandbox: Literal["auto", "required", "off"] = "auto"
    log: LogPlan = LogPlan()
    admin: AdminPlan | None = None
    dns: DnsSettings = field(default_factory=DnsSettings)
    otlp: OtlpPlan | None = None
    whole: bool = field(default=False, compare=False)
    known: frozenset[PublicKey] = field(default=frozenset(), compare=False)
    included: Mapping[PublicKey, str] = field(default_factory=dict, compare=False)
    inputs: Mapping[str, bytes] = field(default_factory=dict, compare=False)
    trusted: Trusted = field(default=Trusted(), compare=False)

    @property
    def auths(self) -> list[KeyAuth | PskAuth]:
        """The authentication of all tunnels, and of all identities of the agent."""
        identities = () if self.agent is None else self.agent.identities.values()
        return [*(tunnel.auth for tunnel in self.tunnels), *(auth for identity in identities for auth in identity.auths)]
