"""Every setting of a tunnel, of its services and of its routes; ``models`` explains the format."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from stcp_proxy.config.plan import HealthPlan, KeepPlan, TunnelPlan
from stcp_proxy.config.setting import Flag, Model, Setting, default_of
from stcp_proxy.config.value_types import (
    ORIGINAL,
    Allowed,
    Bind,
    Date,
    Deadline,
    File,
    Identity,
    Interface,
    Limit,
    Name,
    Peer,
    Rule,
    Rules,
    Several,
    Short,
    TargetOrOriginal,
    To,
    audit_or_enforce,
    on_or_off,
    problem,
    target_alone,
    yes_or_rule,
)
from stcp_proxy.net.address import Destination

KEYS: Final = "Keys"
LIMITS: Final = "Limits and deadlines"
KEY_FLAG: Final = Flag("FILE", name="key", panel=KEYS, text="The private key of this side.")
PSK_FLAG: Final = Flag(
    "FILE", panel=KEYS, text="A file with a shared secret, the same on both sides: instead of keys, or beside them."
)
_BOTH: Final = ("listen", "connect")

Engine = Literal["auto", "kernel", "python"]
SuiteName = Literal["hybrid", "classic"]
BalanceName = Literal["failover", "round-robin", "least-connections"]
Ready = Literal["listening", "target"]
Suites = Annotated[list[SuiteName], Several(), Field(min_length=1)]


def _one_peer(value: Any) -> Any:
    if isinstance(value, list):
        remedy = "name one; for several hosts with the same key, list their addresses under 'to'"
        raise problem("a connect tunnel has one peer", remedy)
    return value


OnePeer = Annotated[Peer, Short(_one_peer, {"type": "string"})]


class HealthModel(Model):
    """`health:` of a tunnel"""

    interval: Annotated[
        Deadline | None,
        Setting("Time between two health checks of a target that answers.", default="only targets that failed are checked"),
    ] = None
    timeout: Annotated[Deadline, Setting("Time for the connection, and again for the handshake.")] = default_of(
        HealthPlan, "timeout"
    )


class KeepModel(Model):
    """`keep:` of a tunnel"""

    idle: Annotated[Deadline, Setting("How long a wire leg waits for its next connection, at most 18 hours.")] = default_of(
        KeepPlan, "idle"
    )
    max_age: Annotated[
        Deadline, Setting("Age from which a wire leg carries no further connection: then a new handshake makes new keys.")
    ] = default_of(KeepPlan, "max_age")
    legs: Annotated[
        Limit, Setting("Waiting wire legs for each peer; a connect tunnel counts them for each address of its peer.")
    ] = default_of(KeepPlan, "legs")
    ready: Annotated[
        int,
        Field(ge=0, le=1024),
        Setting(
            "Wire legs that a connect tunnel makes ahead, for each address of its peer, so that the first connections need no"
            " handshake."
        ),
    ] = default_of(KeepPlan, "ready")


class AllowModeModel(Model):
    """`allow_mode:` of a tunnel"""

    audit: Annotated[
        Date,
        Setting("The date, such as 2026-12-31, at whose beginning (UTC) the audit ends; at most 90 days ahead."),
    ]


class HandOnModel(Model):
    """How a listen tunnel, or one of its services, hands connections on."""

    to: Annotated[
        list[TargetOrOriginal] | None,
        Several(),
        Setting(
            "Targets: addresses, names, unix:/path or srv:_service._tcp.domain. In a listen tunnel, 'original' dials the address"
            " that the client was going to, and services may take the place of targets.",
            flag=Flag(
                "ADDR",
                text="Connect to this target: host:port, unix:/path or srv:_service._tcp.domain.",
                repeated=_BOTH,
                required=("connect",),
            ),
        ),
    ] = Field(None, min_length=1)
    balance: Annotated[
        BalanceName | None,
        Setting("The order in which targets are tried.", default="failover; for a service, its tunnel's", flag=Flag()),
    ] = None
    allow: Annotated[
        list[Allowed] | None,
        Several(),
        Setting(
            "Peers that may connect: names from peers, @groups of a peer directory, public keys, or names of certificates such as"
            " dns:*.example.org. A service without it takes its tunnel's.",
            default="nobody; required with keys",
            mode="listen",
            flag=Flag(
                "[NAME=]PUBKEY",
                panel=KEYS,
                text="A public key that may connect, or the name of a certificate: dns:NAME or a URI.",
                repeated=("listen",),
            ),
        ),
    ] = Field(None, min_length=1)
    proxy_protocol: Annotated[
        Literal["v1", "v2", "none"] | None,
        Setting(
            "Send the target a PROXY protocol header with the client's address.",
            default="none; for a service, its tunnel's",
            mode="listen",
            flag=Flag(),
        ),
    ] = None
    source: Annotated[
        Literal["own", "transparent"] | None,
        Setting(
            "The address that targets are dialled from: the proxy's own or the client's, which needs CAP_NET_ADMIN and routes.",
            default="own; for a service, its tunnel's",
            mode="listen",
        ),
    ] = None
    allow_clients: Annotated[
        Rules | None,
        Setting(
            "Client addresses that a peer may name, as networks.",
            default="every address that is safe to believe",
            mode="listen",
        ),
    ] = None
    allow_targets: Annotated[
        Rules | None,
        Setting(
            "Original destinations that may be dialled, as networks with ports. Required with 'to: original'.",
            default="none",
            mode="listen",
        ),
    ] = None

    @property
    def targets(self) -> list[Destination]:
        """The addresses in `to`, without `original`."""
        return [target for target in self.to or [] if not isinstance(target, str)]

    @property
    def dials_original(self) -> bool:
        """Whether `to` has `original`."""
        return ORIGINAL in (self.to or [])


class ServiceModel(HandOnModel):
    """One entry of `services:`"""

    to: Annotated[
        list[TargetOrOriginal],
        Several(),
        Field(min_length=1),
        Setting("Targets of this service, as in a tunnel. A service may be written as its targets alone."),
    ]


class AcceptProxyModel(Model):
    """`accept_proxy_protocol:`"""

    senders: Annotated[
        Rules | None,
        Setting("Addresses that may send a header.", default="every address, where the tunnel listens on loopback alone"),
    ] = Field(None, alias="from")


class RouteModel(Model):
    """One entry of `routes:`"""

    match: Annotated[Rule, Setting("Original destinations of this route: a network or name, with a port or a range of ports.")]
    to: Annotated[
        list[To] | None, Several(), Setting("Addresses of the peer, in order of preference.", default="the tunnel's")
    ] = Field(None, min_length=1)
    peer: Annotated[OnePeer | None, Setting("The peer.", default="the tunnel's")] = None
    service: Annotated[Name | None, Setting("The service to ask the peer for.", default="the tunnel's")] = None


class TunnelModel(HandOnModel):
    """One entry of `tunnels:`"""

    mode: Annotated[
        Literal["listen", "connect"], Setting("connect beside the client: plain TCP in, STCP out. listen beside the server.")
    ]
    bind: Annotated[
        Bind,
        Setting(
            "Accept connections here: host:port, [v6]:port, :port for every interface, or unix:/path.",
            flag=Flag("ADDR", text="Accept connections here: host:port, [v6]:port, :port or unix:/path.", required=_BOTH),
        ),
    ]
    bind_mode: Annotated[
        Literal["0600", "0660", "0666"] | None,
        Setting("File mode of a unix socket in bind, in quotes.", default="0600", flag=Flag(text="File mode of a unix socket.")),
    ] = None
    freebind: Annotated[bool, Setting("Bind an address that no interface has yet.")] = False
    peer: Annotated[
        OnePeer | None,
        Setting(
            "The peer: a name from peers, a public key, or the name of its certificate, such as dns:db.example.org.",
            default="none; required with keys",
            mode="connect",
            flag=Flag("PUBKEY", panel=KEYS, text="The peer's public key, or the name of its certificate: dns:NAME or a URI."),
        ),
    ] = None
    allow_mode: Annotated[
        AllowModeModel | None,
        Short(audit_or_enforce, {"enum": ["enforce"]}),
        Setting(
            "enforce refuses peers that the tunnel's allow does not name. With audit it admits those that authenticate by any key"
            " or by a certificate of an authority, logs and counts them, and refuses again from a date on.",
            default="enforce",
            mode="listen",
        ),
    ] = None
    services: Annotated[
        dict[Name, Annotated[ServiceModel, Short(target_alone, {"type": ["string", "array"]})]] | None,
        Setting(
            "Named targets behind this tunnel's port.",
            default="none",
            mode="listen",
            flag=Flag(
                "NAME=ADDR",
                name="service",
                text="Connect to this target for peers that ask for this service.",
                repeated=("listen",),
            ),
        ),
    ] = Field(None, min_length=1)
    service: Annotated[
        Name | None,
        Setting("The peer's service to ask for.", default="the peer's 'to'", mode="connect", flag=Flag("NAME")),
    ] = None
    accept_proxy_protocol: Annotated[
        AcceptProxyModel | None,
        Short(yes_or_rule, {"type": "boolean"}),
        Setting("Require a PROXY protocol header from every client: true, or who may send one.", default="false", mode="connect"),
    ] = None
    identity: Annotated[
        Identity | None,
        Setting(
            "The tunnel's own private key files.",
            default="the file's 'identity'",
            flag=KEY_FLAG,
        ),
    ] = None
    psk: Annotated[
        File | None,
        Setting(
            "A file with a shared secret, the same on both sides: instead of keys, or beside them as a second proof.",
            default="the file's 'psk' where the tunnel has no keys",
            flag=PSK_FLAG,
        ),
    ] = None
    suite: Annotated[
        Suites | None,
        Setting(
            "Key exchange: the one that a connect tunnel sends, all that a listen tunnel accepts.",
            default="the file's 'suite', else hybrid",
            flag=Flag(panel=KEYS, text="The key exchange: X25519 with ML-KEM-768, or X25519 alone.", repeated=("listen",)),
        ),
    ] = None
    engine: Annotated[
        Engine | None,
        Setting("What relays bytes: the kernel module, or this process.", default="the file's 'engine', else auto", flag=Flag()),
    ] = None
    max_connections: Annotated[Limit, Setting("Open connections, handshakes included.", flag=Flag("N", panel=LIMITS))] = (
        default_of(TunnelPlan, "max_connections")
    )
    max_handshakes: Annotated[Limit, Setting("Connections whose peer has not authenticated.", flag=Flag("N", panel=LIMITS))] = (
        default_of(TunnelPlan, "max_handshakes")
    )
    max_connections_per_peer: Annotated[
        Limit | None,
        Setting(
            "Open connections of one peer. With a shared secret, of one host.",
            default="nine tenths of max_connections where several peers may connect, else no limit",
            mode="listen",
            flag=Flag("N", panel=LIMITS),
        ),
    ] = default_of(TunnelPlan, "max_connections_per_peer")
    rate_per_peer: Annotated[
        Limit | None,
        Setting(
            "New connections a second of one peer. With a shared secret, of one host.",
            default="no limit",
            mode="listen",
            flag=Flag("N", panel=LIMITS),
        ),
    ] = default_of(TunnelPlan, "rate_per_peer")
    handshake_timeout: Annotated[
        Deadline, Setting("Time for the handshake, from accepting or dialling.", flag=Flag("TIME", panel=LIMITS))
    ] = default_of(TunnelPlan, "handshake_timeout")
    dial_timeout: Annotated[
        Deadline, Setting("Time to reach a target, looking up its name included.", flag=Flag("TIME", panel=LIMITS))
    ] = default_of(TunnelPlan, "dial_timeout")
    idle_timeout: Annotated[
        Deadline | None,
        Setting("End a connection after this long without a byte.", default="never", flag=Flag("TIME", panel=LIMITS)),
    ] = default_of(TunnelPlan, "idle_timeout")
    half_close_timeout: Annotated[
        Deadline,
        Setting("The same for a connection whose one direction has ended.", flag=Flag("TIME", panel=LIMITS)),
    ] = default_of(TunnelPlan, "half_close_timeout")
    max_lifetime: Annotated[
        Deadline | None,
        Setting(
            "End a connection this long after it was accepted, busy or not.",
            default="never",
            flag=Flag("TIME", panel=LIMITS),
        ),
    ] = default_of(TunnelPlan, "max_lifetime")
    intercept: Annotated[
        Literal["redirect", "tproxy"] | None,
        Setting("Accept connections that the host's rules redirect; see docs/INTERCEPTION.md.", default="none", mode="connect"),
    ] = None
    routes: Annotated[
        list[RouteModel] | None,
        Setting("Where intercepted connections go; the first route that matches decides.", default="none", mode="connect"),
    ] = Field(None, min_length=1)
    unmatched: Annotated[
        Literal["refuse", "pass-in-the-clear"] | None,
        Setting("Whether an intercepted connection without a route is refused or passed on.", default="refuse", mode="connect"),
    ] = None
    capture: Annotated[
        Literal["everything", "routes"] | None,
        Setting("What the rules redirect: every destination, or those of the routes.", default="everything", mode="connect"),
    ] = None
    exclude: Annotated[Rules | None, Setting("Destinations that the rules do not redirect.", default="none", mode="connect")] = (
        None
    )
    forwarded: Annotated[
        list[Interface] | None,
        Several(),
        Setting("Interfaces whose forwarded traffic the rules redirect too.", default="none", mode="connect"),
    ] = Field(None, min_length=1)
    mark: Annotated[
        Limit | None,
        Setting("SO_MARK of the proxy's own sockets.", default="21328 with tproxy, else none", mode="connect"),
    ] = None
    health: Annotated[HealthModel, Setting("Health checks of the targets.", default="only targets that failed are checked")] = (
        Field(default_factory=HealthModel)
    )
    keep: Annotated[
        KeepModel | None,
        Short(on_or_off, {"enum": ["on", "off"]}),
        Setting(
            "Keep a wire leg for the next connection after its connection has ended: on, off, or how.",
            default="on",
            flag=Flag("on|off", text="Keep a wire leg for the next connection."),
        ),
    ] = Field(default_factory=KeepModel)
    ready: Annotated[
        Ready | None,
        Setting(
            "When /readyz counts this tunnel as ready: once it listens, or while its far target answers.",
            default="the file's 'ready', else listening",
        ),
    ] = None
