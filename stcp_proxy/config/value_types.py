"""The types of settings' values: the parser, the message for an invalid value, and the JSON schema of each."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError, core_schema

from stcp_proxy.config.audit import midnight
from stcp_proxy.config.duration import MAX_SECONDS, PATTERN, parse_duration
from stcp_proxy.credentials.names import DNS, NamePattern
from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PUBLIC_PREFIX, PublicKey, check_file_name
from stcp_proxy.net.address import Address, Destination, TcpAddress, parse_address, parse_destination, parse_server
from stcp_proxy.net.pattern import Pattern, parse_pattern
from stcp_proxy.protocol.handshake import MAX_RING
from stcp_proxy.redact import shown

_T = TypeVar("_T")
_Json = dict[str, Any]

VARIABLE: Final = re.compile(r"\$(\{|[A-Za-z_])")
NO_VARIABLES: Final = "variables like ${NAME} are not replaced here"
ORIGINAL: Final = "original"
"""In `to` of a listen tunnel: the address that the client dialled before it was intercepted."""
GROUP_MARK: Final = "@"
"""In `allow`, before the name of a group."""
MAX_NAME: Final = 63
NAME: Final = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}"
ALL_USERS: Final = "all"
"""In `users` of an identity: every user."""
_MAX_USER: Final = 2**32 - 2
_INTERFACE: Final = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,13}[A-Za-z0-9*_-]?"


# -- from one value ----------------------------------------------------------------------------------------------------------


def problem(what: str, remedy: str | None) -> PydanticCustomError:
    """Make the exception for a validator: a finding in our own words."""
    return PydanticCustomError("stcp", "{what}", {"what": what, "remedy": remedy})


def _checked(parse: Callable[[Any], _T], *, text_only: bool = True) -> PlainValidator:
    """Make a validator from a parser that raises ConfigError."""

    def validate(value: object) -> _T:
        if text_only and not isinstance(value, str):
            if parse in _OF_ADDRESSES and isinstance(value, int) and 0 < value < 1 << 16:
                raise problem("an address belongs here", f"write ':{value}', or 'HOST:{value}'")
            raise problem("text belongs here", "put it in quotes")
        if isinstance(value, str) and VARIABLE.search(value):
            raise problem(NO_VARIABLES, "write the value itself, or make the file with envsubst")
        try:
            return parse(value)
        except ConfigError as exc:
            raise problem(exc.what, exc.remedy) from None

    return PlainValidator(validate)


def _text(pattern: str | None = None) -> WithJsonSchema:
    return WithJsonSchema({"type": "string"} | ({"pattern": f"^{pattern}$"} if pattern else {}))


def _deadline(value: object) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ConfigError("this time must be more than zero", remedy="leave it out for the default")
    return seconds


def _bind(text: str) -> Address:
    return parse_address(text, role="bind")


def _destination(text: str) -> Destination:
    return parse_destination(text)


def _target(text: str) -> Destination | Literal["original"]:
    return ORIGINAL if text == ORIGINAL else _destination(text)


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ConfigError(f"{shown(text)} is not a name", remedy="use letters, digits, '.', '_' and '-', at most 63")
    return text


def _file(text: str) -> str:
    check_file_name(text)
    if text.startswith("~"):
        raise ConfigError("'~' is not replaced here", remedy="write the whole path, like /home/USER/FILE")
    if not text or "\0" in text:
        raise ConfigError("the name of a file belongs here", remedy="make one with 'stcp-proxy keygen --out FILE'")
    return text


def _directory(text: str) -> str:
    if text.lower().startswith(PUBLIC_PREFIX):
        raise ConfigError("'include' names a directory, so no peer can have this name", remedy="give the peer another name")
    return _file(text)


def _allowed(text: str) -> str | PublicKey | NamePattern:
    """Parse an entry of `allow`: a group, or what `_peer` takes."""
    if not text.startswith(GROUP_MARK):
        return _peer(text)
    if not re.fullmatch(NAME, text.removeprefix(GROUP_MARK)):
        raise ConfigError(f"{shown(text)} is no group", remedy=f"write '{GROUP_MARK}' and the name of a group")
    return text


def _peer(text: str) -> str | PublicKey | NamePattern:
    """Parse a name from `peers`, a key, or a pattern for names of certificates."""
    if text.lower().startswith("stcp-"):
        return PublicKey.parse(text)
    if text.startswith(DNS) or "://" in text:
        return _certificate_name(text)
    if not re.fullmatch(NAME, text):
        raise ConfigError(
            "this is neither a name nor a public key",
            remedy="write a name from 'peers', 'stcp-pub:' and the key, or the name of a certificate: dns:NAME or a URI",
        )
    return text


def _certificate_name(text: str) -> NamePattern:
    try:
        return NamePattern(text)
    except ValueError:
        remedy = "write 'dns:' and a name in small letters, or a URI such as 'spiffe://domain/path'; '*' stands within one part"
        raise ConfigError(f"{shown(text)} is no name of a certificate", remedy=remedy) from None


def _interface(text: str) -> str:
    if not re.fullmatch(_INTERFACE, text):
        remedy = "write its name as 'ip link' shows it, or the beginning of several names and a star, veth*"
        raise ConfigError(f"{shown(text)} is not the name of an interface", remedy=remedy)
    return text


def _user(value: object) -> int | Literal["all"]:
    """Parse the number or the name of a user of this host."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_USER:
        return value
    if not isinstance(value, str):
        raise ConfigError("the name or the number of a user belongs here", remedy=f"or write '{ALL_USERS}' for every user")
    if value == ALL_USERS:
        return "all"
    try:
        return pwd.getpwnam(value).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"there is no user {shown(value)} here", remedy="give the number of the user") from None


_DURATION_SCHEMA: Final = WithJsonSchema(
    {"anyOf": [{"type": "number", "minimum": 0, "maximum": MAX_SECONDS}, {"type": "string", "pattern": f"^{PATTERN}$"}]}
)


@dataclass(frozen=True, slots=True)
class Kind:
    """Annotation of a type: the name of its values on a page."""

    words: str


TIME: Final = Kind("time")


_OF_ADDRESSES: Final = (_bind, _destination, _target)
Name = Annotated[str, _checked(_name), _text(NAME), Kind("name")]
File = Annotated[str, _checked(_file), _text(), Kind("file name")]
Bind = Annotated[Address, _checked(_bind), _text(), Kind("address")]
To = Annotated[Destination, _checked(_destination), _text(), Kind("address")]
TargetOrOriginal = Annotated[Destination | Literal["original"], _checked(_target), _text(), Kind("address or `original`")]
Server = Annotated[TcpAddress, _checked(parse_server), _text(), Kind("IP address")]
Rule = Annotated[Pattern, _checked(parse_pattern), _text(), Kind("addresses and ports")]
Key = Annotated[PublicKey, _checked(PublicKey.parse), _text("stcp-pub:[A-Za-z0-9+/]{43}="), Kind("public key")]
Peer = Annotated[str | PublicKey | NamePattern, _checked(_peer), _text(), Kind("name, public key or name of a certificate")]
Allowed = Annotated[
    str | PublicKey | NamePattern, _checked(_allowed), _text(), Kind("name, `@group`, public key or name of a certificate")
]
Directory = Annotated[str, _checked(_directory), _text(), Kind("directory")]
CertificateName = Annotated[NamePattern, _checked(_certificate_name), _text(), Kind("name of a certificate")]
Interface = Annotated[str, _checked(_interface), _text(_INTERFACE), Kind("interface")]
User = Annotated[
    int | Literal["all"],
    _checked(_user, text_only=False),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": _MAX_USER}, {"type": "string"}]}),
    Kind("user name or number, or `all`"),
]
Span = Annotated[float, _checked(parse_duration, text_only=False), _DURATION_SCHEMA, TIME]
Deadline = Annotated[float, _checked(_deadline, text_only=False), _DURATION_SCHEMA, TIME]
Date = Annotated[float, _checked(midnight), _text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), Kind("date")]
Limit = Annotated[int, Field(ge=1, le=1_000_000)]


# -- from one value or several -------------------------------------------------------------------------------------------------


class Several:
    """Annotation of a list: a single value stands for a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_some, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> _Json:
        found = handler(schema)
        array = next(part for part in found.get("anyOf", [found]) if "items" in part)
        return {"anyOf": [array["items"], array]}


class Short:
    """Annotation of a model: a value of another type stands for the model.

    Args:
        expand: makes the model's data from the other value; returns the model's own data unchanged.
        schema: the JSON schema of the other value.
    """

    def __init__(self, expand: Callable[[object], object], schema: _Json) -> None:
        self._expand = expand
        self._schema = schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> _Json:
        return {"anyOf": [self._schema, handler(schema)]}


def _some(value: object) -> object:
    return value if isinstance(value, list) else [value]


def target_alone(value: object) -> object:
    """Expand a service that is written as its target alone."""
    return {"to": value} if isinstance(value, str | list) else value


def bundle_alone(value: object) -> object:
    """Expand an authority that is written as its bundle alone."""
    return {"bundle": value} if isinstance(value, str) else value


def yes_or_rule(value: object) -> object:
    """Expand `true` to a rule without settings, and `false` to no rule."""
    return {} if value is True else None if value is False else value


def on_or_off(value: object) -> object:
    """Expand `on` to settings with their defaults, and `off` to none."""
    return {"on": {}, "off": None}.get(value, value) if isinstance(value, str) else value


def audit_or_enforce(value: object) -> object:
    """Expand `enforce` to no audit; refuse `audit` without its date."""
    if value == "audit":
        raise problem("an audit needs the date of its end", "write {audit: 2026-12-31}, with a date of the next weeks")
    return None if value == "enforce" else value


Rules = Annotated[list[Rule], Several(), Field(min_length=1)]
Identity = Annotated[list[File], Several(), Field(min_length=1, max_length=MAX_RING)]
Keys = Annotated[list[Key], Several(), Field(min_length=1, max_length=MAX_RING)]
