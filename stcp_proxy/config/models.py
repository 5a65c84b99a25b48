"""The shape of a configuration: which keys there are, of what type, in what range.

What a value means in its context (is the peer known, is the folder there) is build.py's business.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from stcp_proxy.config.plan import LogFormat
from stcp_proxy.config.source import KeyPath, Source
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PublicKey, check_file_name
from stcp_proxy.net.address import Address, Destination, TcpAddress, parse_address, parse_destination, parse_server
from stcp_proxy.net.pattern import Pattern, parse_pattern
from stcp_proxy.protocol.handshake import MAX_RING
from stcp_proxy.redact import shown

_T = TypeVar("_T")
_M = TypeVar("_M", bound="_Model")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,13}[A-Za-z0-9*_-]?")
ORIGINAL: Final = "original"
"""In `to` of a listen tunnel: where the client was going before it was intercepted."""
_MAX_SECONDS: Final = 366 * 24 * 3600.0


def parse_duration(value: object) -> float:
    """Seconds, from a number of them or from text like 30s, 5m, 1h, 250ms.

    Raises:
        ConfigError: anything else, a negative number, or more than a year.
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ConfigError(f"{shown(value)} is not a time", remedy="write seconds, or a number with ms, s, m or h")
    return seconds


def _deadline(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ConfigError("this time must be more than zero", remedy="leave it out for the default")
    return seconds


def _checked(parse: Callable[[Any], _T], *, text_only: bool = True) -> Callable[[object], _T]:
    """A pydantic validator from a parser that raises ConfigError."""

    def validate(value: object) -> _T:
        if text_only and not isinstance(value, str):
            raise PydanticCustomError("stcp", "{what}", {"what": "text belongs here", "remedy": "put it in quotes"})
        try:
            return parse(value)
        except ConfigError as exc:
            raise PydanticCustomError("stcp", "{what}", {"what": exc.what, "remedy": exc.remedy}) from None

    return validate


def _bind(text: str) -> Address:
    return parse_address(text, role="bind")


def _target(text: str) -> Destination | Literal["original"]:
    """Where to hand on to: an address, or wherever the client was going."""
    return ORIGINAL if text == ORIGINAL else parse_destination(text)


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ConfigError(f"{shown(text)} is not a name", remedy="use letters, digits, '.', '_' and '-', at most 63")
    return text


def _file(text: str) -> str:
    check_file_name(text)
    if not text or "\0" in text:
        raise ConfigError("the name of a file belongs here", remedy="make one with 'stcp-proxy keygen --out FILE'")
    return text


def _peer(text: str) -> str | PublicKey:
    """A name from `peers`, or a key itself."""
    if text.lower().startswith("stcp-"):
        return PublicKey.parse(text)
    if not _NAME.fullmatch(text):
        raise ConfigError(
            "this is neither a name nor a public key", remedy="write a name from 'peers', or 'stcp-pub:' and the key"
        )
    return text


def _interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text):
        remedy = "write its name as 'ip link' shows it, or the beginning of several names and a star, veth*"
        raise ConfigError(f"{shown(text)} is not the name of an interface", remedy=remedy)
    return text


def _some(value: object) -> object:
    """One value stands for a list of one."""
    return value if isinstance(value, list) else [value]


def _written_short(value: object) -> object:
    """A service that is written as its target alone."""
    return {"to": value} if isinstance(value, str | list) else value


def _yes_or_rule(value: object) -> object:
    """`true` is a rule with nothing in it, `false` is none."""
    return {} if value is True else None if value is False else value


def _one_peer(value: object) -> object:
    if isinstance(value, list):
        remedy = "name one; for several hosts with the same key, list their addresses under 'to'"
        raise PydanticCustomError("stcp", "{what}", {"what": "a connect tunnel has one peer", "remedy": remedy})
    return value


Name = Annotated[str, PlainValidator(_checked(_name))]
File = Annotated[str, PlainValidator(_checked(_file))]
Bind = Annotated[Address, PlainValidator(_checked(_bind))]
To = Annotated[Destination, PlainValidator(_checked(parse_destination))]
TargetOrOriginal = Annotated[Destination | Literal["original"], PlainValidator(_checked(_target))]
Server = Annotated[TcpAddress, PlainValidator(_checked(parse_server))]
Rule = Annotated[Pattern, PlainValidator(_checked(parse_pattern))]
Rules = Annotated[list[Rule], BeforeValidator(_some), Field(min_length=1)]
Key = Annotated[PublicKey, PlainValidator(_checked(PublicKey.parse))]
Identity = Annotated[list[File], BeforeValidator(_some), Field(min_length=1, max_length=MAX_RING)]
Keys = Annotated[list[Key], BeforeValidator(_some), Field(min_length=1, max_length=MAX_RING)]
Peer = Annotated[str | PublicKey, PlainValidator(_checked(_peer))]
Span = Annotated[float, PlainValidator(_checked(parse_duration, text_only=False))]
Deadline = Annotated[float, PlainValidator(_checked(_deadline, text_only=False))]
Interface = Annotated[str, PlainValidator(_checked(_interface))]
Engine = Literal["auto", "kernel", "python"]
SuiteName = Literal["hybrid", "classic"]
BindMode = Literal["0600", "0660", "0666"]
QuietClass = Literal["connections", "handshake-errors", "connection-errors"]
Ready = Literal["listening", "target"]
Suites = Annotated[list[SuiteName], BeforeValidator(_some), Field(min_length=1)]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]
HeaderVersion = Literal["v1", "v2", "none"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


class LogModel(_Model):
    """`log:`"""

    level: Literal["debug", "info", "warning", "error"] | None = None
    format: LogFormat | None = None
    quiet: Annotated[list[QuietClass], BeforeValidator(_some)] | None = None


class HealthModel(_Model):
    """`health:` of a tunnel."""

    interval: Deadline | None = None
    timeout: Deadline | None = None


class DnsModel(_Model):
    """`dns:`"""

    ttl: Span | None = None
    stale: Span | None = None
    keep: Span | None = None
    servers: Annotated[list[Server], BeforeValidator(_some), Field(min_length=1)] | None = None


class HandOnModel(_Model):
    """How a listen tunnel, or one of its services, hands connections on."""

    to: Annotated[list[TargetOrOriginal], BeforeValidator(_some), Field(min_length=1)] | None = None
    balance: Literal["failover", "round-robin", "least-connections"] | None = None
    allow: Annotated[list[Peer], BeforeValidator(_some), Field(min_length=1)] | None = None
    proxy_protocol: HeaderVersion | None = None
    source: Literal["own", "transparent"] | None = None
    allow_clients: Rules | None = None
    allow_targets: Rules | None = None

    @property
    def targets(self) -> list[Destination]:
        """The addresses in `to`."""
        return [target for target in self.to or [] if not isinstance(target, str)]

    @property
    def dials_original(self) -> bool:
        """Whether `to` has `original`."""
        return ORIGINAL in (self.to or [])


class ServiceModel(HandOnModel):
    """One entry of `services:`"""

    to: Annotated[list[TargetOrOriginal], BeforeValidator(_some), Field(min_length=1)]


class AcceptProxyModel(_Model):
    """`accept_proxy_protocol:`"""

    senders: Annotated[Rules | None, Field(alias="from")] = None


class RouteModel(_Model):
    """One entry of a tunnel's `routes:`"""

    match: Rule
    to: Annotated[list[To], BeforeValidator(_some), Field(min_length=1)] | None = None
    peer: Annotated[Peer, BeforeValidator(_one_peer)] | None = None
    service: Name | None = None


class TunnelModel(HandOnModel):
    """One entry of `tunnels:`"""

    mode: Literal["listen", "connect"]
    bind: Bind
    bind_mode: BindMode | None = None
    peer: Annotated[Peer, BeforeValidator(_one_peer)] | None = None
    services: Annotated[dict[Name, Annotated[ServiceModel, BeforeValidator(_written_short)]], Field(min_length=1)] | None = None
    service: Name | None = None
    accept_proxy_protocol: Annotated[AcceptProxyModel | None, BeforeValidator(_yes_or_rule)] = None
    identity: Identity | None = None
    psk: File | None = None
    suite: Suites | None = None
    engine: Engine | None = None
    max_connections: Limit | None = None
    max_handshakes: Limit | None = None
    handshake_timeout: Deadline | None = None
    dial_timeout: Deadline | None = None
    idle_timeout: Deadline | None = None
    half_close_timeout: Deadline | None = None
    intercept: Literal["redirect", "tproxy"] | None = None
    routes: Annotated[list[RouteModel], Field(min_length=1)] | None = None
    unmatched: Literal["refuse", "pass-in-the-clear"] | None = None
    capture: Literal["everything", "routes"] | None = None
    exclude: Rules | None = None
    forwarded: Annotated[list[Interface], BeforeValidator(_some), Field(min_length=1)] | None = None
    mark: Limit | None = None
    health: HealthModel | None = None
    ready: Ready | None = None


class ConfigModel(_Model):
    """The whole file."""

    identity: Identity | None = None
    psk: File | None = None
    peers: dict[Name, Keys] = Field(default_factory=dict)
    tunnels: Annotated[dict[Name, TunnelModel], Field(min_length=1)]
    suite: Suites | None = None
    engine: Engine | None = None
    drain: Span | None = None
    drain_outbound: Literal["stop", "keep"] | None = None
    revoke_grace: Span | None = None
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    log: LogModel | None = None
    admin: Bind | None = None
    admin_token: File | None = None
    ready: Ready | None = None
    dns: DnsModel | None = None


class AdminModel(_Model):
    """What of the file whoever asks a running proxy has to know."""

    admin: Bind | None = None
    admin_token: File | None = None


def validate(source: Source, kind: type[_M]) -> _M:
    """The model of a source's data.

    Raises:
        ConfigProblems: with everything that is wrong about its shape.
    """
    model = None
    try:
        model = kind.model_validate(source.data)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_input=False):
            _explain(source, error)
    source.raise_findings()
    assert model is not None  # noqa: S101  (a ValidationError has at least one error)
    return model


def _explain(source: Source, error: ErrorDetails) -> None:
    """A pydantic error as a finding. Its own words are for programmers, and only the fallback."""
    path: KeyPath = tuple(step for step in error["loc"] if step != "[key]")
    context = error.get("ctx", {})
    match error["type"]:
        case "stcp":
            source.report(path, context["what"], context["remedy"])
        case "extra_forbidden":
            source.report(path, "there is no such key", _suggest(str(path[-1]), _keys_at(path[:-1])))
        case "missing":
            source.report(path, f"'{path[-1]}' is missing", _MISSING.get(str(path[-1])))
        case "literal_error":
            quotes = "in quotes: a bare 0660 is another number in YAML" if path[-1] == "bind_mode" else None
            source.report(path, f"{context['expected']} belongs here", quotes)
        case "model_type" | "dict_type":
            source.report(path, "a mapping belongs here", "write its keys below it, indented")
        case "int_type" | "greater_than_equal" | "less_than_equal":
            source.report(path, "a whole number from 1 to 1000000 belongs here")
        case "too_long":
            most = context["max_length"]
            source.report(path, f"at most {most} belong here, and these are {context['actual_length']}", "take out what is old")
        case "too_short":
            source.report(path, "this is empty", "leave it out, or fill it")
        case _:
            source.report(path, error["msg"])


_MISSING: Final = {
    "mode": "write 'mode: connect' beside the client, 'mode: listen' beside the server",
    "bind": "say where to accept connections",
    "to": "say where to hand connections on to",
    "match": "say which destinations this route is for, like 10.0.0.0/8:6379",
    "tunnels": "describe at least one tunnel",
}


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that are known in the mapping at `path`."""
    model: type[_Model] = ConfigModel
    match path:
        case ("log",):
            model = LogModel
        case ("dns",):
            model = DnsModel
        case ("tunnels", _, "routes", _):
            model = RouteModel
        case ("tunnels", _, "services", _):
            model = ServiceModel
        case ("tunnels", _, "accept_proxy_protocol"):
            model = AcceptProxyModel
        case ("tunnels", _, "health"):
            model = HealthModel
        case ("tunnels", *_):
            model = TunnelModel
    return [field.alias or name for name, field in model.model_fields.items()]


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.75)
    return f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
