"""Every setting of a file: its key, type, range, default, description, and option.

This is the only place that describes a setting. Options and their help, `stcp-proxy check`, docs/SETTINGS.md and the JSON schema
are made from it. A default is defined in the plan, because a serving process reads only the plan. ``plan_builder`` checks a value
in its context: whether the peer is known, whether the folder exists.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from stcp_proxy.config.agent_models import AgentModel
from stcp_proxy.config.certificate_models import CERTIFICATES, AuthorityModel, CertificateModel
from stcp_proxy.config.otlp_models import OtlpModel
from stcp_proxy.config.plan import LogFormat, LogPlan, Plan
from stcp_proxy.config.setting import Flag, Model, Setting, default_of
from stcp_proxy.config.tunnel_models import LIMITS, Engine, Ready, Suites, TunnelModel
from stcp_proxy.config.value_types import (
    NAME,
    Bind,
    Deadline,
    Directory,
    File,
    Identity,
    Keys,
    Limit,
    Name,
    Server,
    Several,
    Short,
    Span,
    bundle_alone,
)
from stcp_proxy.keys import PublicKey
from stcp_proxy.net.dns_settings import DnsSettings

LOGS: Final = "Logs"
ADMIN: Final = "Admin address"
_EACH: Final = ("listen", "connect", "agent")

QuietClass = Literal["connections", "handshake-errors", "connection-errors"]
Level = Literal["debug", "info", "warning", "error"]


class LogModel(Model):
    """`log:`"""

    level: Annotated[Level, Setting("The least severe lines that are logged.", flag=Flag(name="log-level", panel=LOGS))] = (
        default_of(LogPlan, "level")
    )
    format: Annotated[
        LogFormat | None,
        Setting("How a log line looks.", default="text on a terminal, json elsewhere", flag=Flag(name="log-format", panel=LOGS)),
    ] = None
    quiet: Annotated[
        list[QuietClass],
        Several(),
        Setting("Classes of log lines that are not written.", default="none", flag=Flag(panel=LOGS, repeated=_EACH)),
    ] = Field(default_factory=list)


class DnsModel(Model):
    """`dns:`"""

    ttl: Annotated[Span, Setting("Use an answer for this long, at most.")] = default_of(DnsSettings, "ttl")
    stale: Annotated[Span, Setting("Use an answer for this long after its ttl while no name server answers.")] = default_of(
        DnsSettings, "stale"
    )
    keep: Annotated[Span, Setting("A route by name covers an address for this long after an answer contained it.")] = default_of(
        DnsSettings, "keep"
    )
    servers: Annotated[
        list[Server],
        Several(),
        Field(min_length=1),
        Setting("Name servers to ask, by IP address.", default="the system's resolver"),
    ] = Field(default_factory=list)


def _with_names(schema: dict[str, Any]) -> None:
    """Put the names of peers into the JSON schema of `peers`."""
    schema["patternProperties"] = {f"^(?!include$){NAME}$": TypeAdapter(Keys).json_schema()}
    schema["additionalProperties"] = False


AdminAddress = Annotated[
    Bind | None,
    Setting(
        "Address of status, metrics and dashboard: loopback, unix:/path, or another with a token.",
        default="none",
        flag=Flag("ADDR", panel=ADMIN),
    ),
]
AdminToken = Annotated[
    File | None,
    Setting(
        "A file with the token that requests to the admin address must carry.",
        default="none",
        flag=Flag("FILE", panel=ADMIN),
    ),
]


class PeersModel(Model):
    """`peers`: every key but `include` is the name of a peer."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_with_names)
    others: ClassVar[Any] = Keys
    __pydantic_extra__: dict[str, Keys]

    include: Annotated[
        list[Directory],
        Several(),
        Setting(
            "Directories with a file NAME.pub for each further peer: its public keys, one a line, and '# groups: NAME, NAME'.",
            default="none",
        ),
    ] = Field(default_factory=list)

    @property
    def named(self) -> dict[str, list[PublicKey]]:
        """The keys of each peer in the file itself, by name."""
        return self.model_extra or {}


class AdminModel(Model):
    """The settings that a command needs to find a running proxy."""

    admin: AdminAddress = None
    admin_token: AdminToken = None


class ConfigModel(Model):
    """The whole file"""

    identity: Annotated[
        Identity | None,
        Setting("This host's private key file; several while one replaces the other.", default="none; required with keys"),
    ] = None
    psk: Annotated[File | None, Setting("A shared secret for tunnels that name neither a key nor a secret.", default="none")] = (
        None
    )
    peers: Annotated[
        PeersModel,
        Setting("Names of peers and their public keys; several keys while one replaces the other.", default="none"),
    ] = Field(default_factory=lambda: PeersModel.model_validate({}))
    certificate: Annotated[
        CertificateModel | None, Setting("The certificate of this side.", default="none; required with names of certificates")
    ] = None
    authorities: Annotated[
        dict[Name, Annotated[AuthorityModel, Short(bundle_alone, {"type": "string"})]],
        Setting(
            "Authorities that may vouch for peers. An authority may be written as its bundle alone.",
            default="none; required with names of certificates",
            flag=Flag(
                "[NAME=]FILE",
                name="authority",
                panel=CERTIFICATES,
                text="Certificates of an authority that may vouch for peers, as PEM.",
                repeated=_EACH,
            ),
        ),
    ] = Field(default_factory=dict)
    revoked: Annotated[
        File | None, Setting("A file with revoked public keys and serial numbers, one a line.", default="none")
    ] = None
    expired: Annotated[
        Literal["keep", "end"], Setting("Whether a connection goes on when the certificate of its peer expires.")
    ] = "keep"
    tunnels: Annotated[
        dict[Name, TunnelModel], Field(min_length=1), Setting("The tunnels by name.", default="none; required without 'agent'")
    ] = Field(default_factory=dict)
    agent: Annotated[
        AgentModel | None,
        Setting("Do the handshakes of kernel sockets (docs/KERNEL.md). Only a restart adds or removes it.", default="none"),
    ] = None
    suite: Annotated[Suites | None, Setting("Key exchange of tunnels that set none.", default="hybrid")] = None
    engine: Annotated[Engine | None, Setting("Engine of tunnels that set none.", default="auto")] = None
    drain: Annotated[Span, Setting("Time for open connections to finish after a stop.", flag=Flag("TIME", panel=LIMITS))] = (
        default_of(Plan, "drain")
    )
    drain_outbound: Annotated[
        Literal["stop", "keep"],
        Setting("Whether connect tunnels accept new connections during the drain, for an application that shuts down."),
    ] = default_of(Plan, "drain_outbound")
    revoke_grace: Annotated[Span, Setting("Time for which connections go on after a reload has removed their key.")] = default_of(
        Plan, "revoke_grace"
    )
    workers: Annotated[
        int, Field(ge=1, le=64), Setting("Processes that share the load.", restart=True, flag=Flag("N", panel=LIMITS))
    ] = default_of(Plan, "workers")
    stalled_mib: Annotated[
        Limit,
        Setting(
            "MiB that all connections may hold for stalled readers; beyond it, each further one holds 64 KiB in a direction.",
            flag=Flag("MIB", panel=LIMITS),
        ),
    ] = default_of(Plan, "stalled_mib")
    watch: Annotated[
        Deadline | None,
        Setting(
            "Time between two checks of this file and of every file that it names; a changed content reloads.", default="never"
        ),
    ] = None
    takeover: Annotated[
        Bind | None,
        Setting(
            "Unix socket at which a new process takes over ('--replace'): unix:/path.",
            default="none",
            restart=True,
            flag=Flag("ADDR", panel=LIMITS),
        ),
    ] = None
    takeover_drain: Annotated[
        Span,
        Setting("Time for open connections to finish after a new process has taken over.", flag=Flag("TIME", panel=LIMITS)),
    ] = default_of(Plan, "takeover_drain")
    sandbox: Annotated[
        Literal["auto", "required", "off"],
        Setting(
            "Landlock: whether the proxy gives up all files that it does not need. 'required' starts only where the kernel can.",
            restart=True,
            flag=Flag(panel=LIMITS),
        ),
    ] = default_of(Plan, "sandbox")
    log: Annotated[LogModel, Setting("Log lines.")] = Field(default_factory=LogModel)
    admin: AdminAddress = None
    admin_token: AdminToken = None
    ready: Annotated[Ready | None, Setting("'ready' of tunnels that set none.", default="listening")] = None
    dns: Annotated[DnsModel, Setting("How names are looked up.")] = Field(default_factory=DnsModel)
    otlp: Annotated[
        OtlpModel | None,
        Setting("Spans of connections for a collector of OpenTelemetry; they need the extra `stcp-proxy[otlp]`.", default="none"),
    ] = None
