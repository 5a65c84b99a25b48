"""What a process is to run, complete and checked: the frozen result of reading flags or a file.

Nothing here knows where it came from. The defaults of all settings stand here, once.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stcp_proxy.config.token import Token
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import Address, Destination
from stcp_proxy.net.listen import UNIX_MODE
from stcp_proxy.net.names import DnsSettings
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

LogFormat = Literal["text", "json"]


class Mode(enum.StrEnum):
    """Which end of the wire leg a tunnel is."""

    LISTEN = "listen"
    CONNECT = "connect"


class EngineChoice(enum.StrEnum):
    """Which engine may carry a tunnel's connections."""

    AUTO = "auto"
    KERNEL = "kernel"
    PYTHON = "python"


class LogClass(enum.StrEnum):
    """Log lines that may be silenced together."""

    CONNECTIONS = "connections"
    """A connection's line at its ordinary end."""
    HANDSHAKE_ERRORS = "handshake-errors"
    """Who did not prove itself, or to whom this side could not: strangers, wrong keys, other versions, silence."""
    CONNECTION_ERRORS = "connection-errors"
    """What else keeps a connection from coming to be, or ends it before its time: targets, peers, the network."""


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
class KeyAuth:
    """Each side proves a key of its own.

    Attributes:
        identity: ours.
        peers: whom we talk to, and the name in logs; on the connect side exactly one.
    """

    identity: PrivateKey
    peers: Mapping[PublicKey, str]


@dataclass(frozen=True, slots=True)
class PskAuth:
    """Both sides hold the same secret, which names nobody.

    Attributes:
        secret: the shared secret.
    """

    secret: Secret


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """One tunnel, complete and checked.

    Attributes:
        name: in logs and metrics.
        mode: which end of the wire leg this is.
        bind: where it accepts.
        to: where it dials.
        auth: who may talk to whom.
        suites: exactly one for connect, all that are accepted for listen.
        engine: which engine may carry its connections.
        max_connections: accepted and not ended, handshakes included.
        max_handshakes: accepted and not yet proved.
        handshake_timeout: seconds from accept (or dial) to the peer's proof.
        dial_timeout: seconds for the whole dial, names included.
        idle_timeout: seconds without a byte in either direction; None is no limit.
        half_close_timeout: the same once one direction has ended.
        bind_mode: mode of the file where `bind` is a unix socket: who may write to it may connect.
        balance: the order in which the targets of `to` are tried.
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
    balance: Balance = Balance.FAILOVER


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
        workers: processes that share the load.
        log: what is logged, and how it looks.
        admin: where it can be looked into; None is nowhere.
        dns: how names are looked up; its defaults stand beside the resolver.
    """

    tunnels: tuple[TunnelPlan, ...]
    drain: float = 30.0
    workers: int = 1
    log: LogPlan = LogPlan()
    admin: AdminPlan | None = None
    dns: DnsSettings = field(default_factory=DnsSettings)
