"""Addresses as users write them, and as logs show them.

    host:port   [v6]:port   [v6%interface]:port   :port   unix:/path   srv:_service._tcp.domain

`:port` is every interface, both families, where it is bound, and localhost where it is dialled. The text form of an address
is canonical: two spellings of one address compare equal.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from typing import Any, Final, Literal

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.zone import ZoneError, parse_ipv6
from stcp_proxy.redact import printable, shown

UNIX_PREFIX: Final = "unix:"
SRV_PREFIX: Final = "srv:"
MAX_UNIX_PATH: Final = 107
"""Bytes in sockaddr_un.sun_path, less the zero behind them."""
MAX_PORT: Final = 65535
_MAX_HOST: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_BRACKETS: Final = re.compile(r"\[([^]]*)\](?::(.*))?")

_FORMS: Final = "write host:port, [v6]:port, :port or unix:/path"

Role = Literal["bind", "to"]


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP port of a host.

    Attributes:
        host: name or IP address in canonical form; empty for every interface of both families.
        port: 1 to 65535; 0 where the system picks one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket.

    Attributes:
        path: absolute, at most 107 bytes.
    """

    path: str

    def __str__(self) -> str:
        return UNIX_PREFIX + self.path


@dataclass(frozen=True, slots=True)
class SrvAddress:
    """What the SRV records of a name say (RFC 2782); only to dial.

    Attributes:
        name: of the records, in lower case.
    """

    name: str

    def __str__(self) -> str:
        return SRV_PREFIX + self.name


Address = TcpAddress | UnixAddress
Destination = TcpAddress | UnixAddress | SrvAddress
"""What can be dialled."""


def parse_address(text: str, *, role: Role) -> Address:
    """The address that `text` spells.

    Args:
        text: one of the forms above.
        role: what it is for. Only an address to bind may have port 0, the system's choice.

    Raises:
        ConfigError: with what is wrong, and how to write it.
    """
    _refuse_url(text)
    if text.startswith(UNIX_PREFIX):
        return _parse_unix(text.removeprefix(UNIX_PREFIX))
    if text.startswith("/"):
        raise ConfigError(f"{shown(text)} is a path", remedy=f"write unix:/path to {_verb(role)} a unix socket")
    return _parse_tcp(text, role)


def _refuse_url(text: str) -> None:
    """Refuse a URL. The message shows only its address, because the URL may contain a password."""
    scheme, mark, rest = text.partition("://")
    if not mark or not scheme.isalnum():
        return
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    port = host.rpartition(":")[2].isdecimal()
    raise ConfigError("this is a URL, and an address belongs here", remedy=f"write {host}{'' if port else ':PORT'}")


def parse_destination(text: str) -> Destination:
    """What `text` says to dial: an address, or the name of SRV records.

    Raises:
        ConfigError: with what is wrong, and how to write it.
    """
    return _parse_srv(text.removeprefix(SRV_PREFIX)) if text.startswith(SRV_PREFIX) else parse_address(text, role="to")


def parse_server(text: str) -> TcpAddress:
    """The address of a name server: an IP address, with a port where it is not 53.

    Raises:
        ConfigError: it is something else.
    """
    if match := _BRACKETS.fullmatch(text):
        host, port = match[1], match[2] or "53"
    else:
        host, port = text.split(":") if text.count(":") == 1 else (text, "53")
    try:
        ip = parse_ipv6(host) if ":" in host else str(ipaddress.IPv4Address(host))
    except ZoneError as exc:
        raise ConfigError(f"{shown(text)} {exc.what}", remedy=exc.remedy) from None
    except ValueError:
        raise ConfigError(f"{shown(text)} is no IP address", remedy="write the name server's address, not its name") from None
    return TcpAddress(ip, _parse_port(text, port, "to"))


def describe_sockaddr(family: int, sockaddr: Any) -> str:
    """The text of a socket address for logs, in the form that `parse_address` reads.

    Args:
        family: the socket's, AF_INET, AF_INET6 or AF_UNIX.
        sockaddr: what the socket module gives for it.
    """
    if family == socket.AF_UNIX:
        name = os.fsdecode(sockaddr)
        return UNIX_PREFIX + printable("@" + name[1:] if name.startswith("\0") else name)
    host, port = sockaddr[0], sockaddr[1]
    if family == socket.AF_INET6:
        address = ipaddress.IPv6Address(host.partition("%")[0])
        if address.ipv4_mapped is not None:
            return f"{address.ipv4_mapped}:{port}"
        scope = _scope_name(sockaddr[3]) if len(sockaddr) > 3 and sockaddr[3] else ""
        return f"[{address}{scope}]:{port}"
    return f"{host}:{port}"


def _scope_name(index: int) -> str:
    try:
        return "%" + printable(socket.if_indextoname(index))
    except OSError:
        return f"%{index}"


def _verb(role: Role) -> str:
    return "listen on" if role == "bind" else "dial"


def _parse_unix(path: str) -> UnixAddress:
    if path.startswith("@"):
        raise ConfigError("abstract unix sockets have no access control", remedy="give the socket a path, unix:/path")
    if not path.startswith("/"):
        raise ConfigError(f"unix:{printable(path)} is not an absolute path", remedy="write unix:/path")
    if "\0" in path or path.endswith("/"):
        raise ConfigError(f"unix:{printable(path)} does not name a socket file", remedy="write unix:/folder/name")
    length = len(os.fsencode(path))
    if length > MAX_UNIX_PATH:
        raise ConfigError(
            f"the unix socket path {shown(path)} is {length} bytes, and the system allows {MAX_UNIX_PATH}",
            remedy="use a shorter path",
        )
    return UnixAddress(path)


def _parse_srv(name: str) -> SrvAddress:
    lowered = name.lower()
    labels = lowered.removesuffix(".").split(".")
    if ":" in name:
        raise ConfigError(f"srv:{printable(name)} has a port", remedy="leave it out: the SRV records name the ports")
    if len(labels) < 3 or not (labels[0].startswith("_") and labels[1] == "_tcp"):
        raise ConfigError(f"srv:{printable(name)} does not name SRV records", remedy="write srv:_service._tcp.domain")
    if len(lowered) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigError(f"srv:{printable(name)} has no valid name", remedy="write srv:_service._tcp.domain")
    return SrvAddress(lowered)


def _parse_tcp(text: str, role: Role) -> TcpAddress:
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ConfigError(f"{shown(text)} has no port", remedy=_FORMS)
    if host.startswith("[") and host.endswith("]"):
        host = _parse_v6(text, host[1:-1])
    elif "," in host:
        raise ConfigError(f"{shown(text)} has several addresses", remedy="write each by itself: a list in a file, --to for each")
    elif ":" in host:
        raise ConfigError(f"{shown(text)} has more than one colon", remedy="put an IPv6 address in brackets, [v6]:port")
    elif host:
        host = _parse_host(text, host)
    elif role == "to":
        host = "localhost"
    number = _parse_port(text, port, role)
    if role == "to" and host in ("0.0.0.0", "::"):  # noqa: S104
        raise ConfigError(f"{shown(text)} is an address to listen on, not one to dial", remedy="name the host to dial")
    return TcpAddress(host, number)


def _parse_port(text: str, port: str, role: Role) -> int:
    if not (port.isascii() and port.isdigit()):
        raise ConfigError(f"the port of {shown(text)} is not a number", remedy=_FORMS)
    lowest = 0 if role == "bind" else 1
    number = int(port) if len(port) <= len(str(MAX_PORT)) else MAX_PORT + 1
    if not lowest <= number <= MAX_PORT:
        raise ConfigError(f"the port of {shown(text)} is out of range", remedy=f"ports are 1 to {MAX_PORT}")
    return number


def _parse_v6(text: str, host: str) -> str:
    try:
        return parse_ipv6(host)
    except ZoneError as exc:
        raise ConfigError(f"{shown(text)} {exc.what}", remedy=exc.remedy) from None
    except ValueError:
        raise ConfigError(f"{shown(text)} has no IPv6 address in its brackets", remedy=_FORMS) from None


def _parse_host(text: str, host: str) -> str:
    """A name or IPv4 address in canonical form. What ends in a number must be an address: 1.2.3.400 is no name."""
    if host == "*":
        raise ConfigError(f"{shown(text)}: every interface is written without a star", remedy="write :port")
    name = host.lower()
    labels = name.removesuffix(".").split(".")
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            raise ConfigError(f"{shown(text)} has no valid IPv4 address", remedy=_FORMS) from None
    if len(name) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigError(f"{shown(text)} has no valid host name", remedy=_FORMS)
    return name


# -- mistakes that two addresses make together -------------------------------------------------------------------------------

_ANY: Final = {"0.0.0.0": 4, "::": 6}  # noqa: S104
_HOSTS: Final = {"": ("0.0.0.0", "::"), "localhost": ("127.0.0.1", "::1")}  # noqa: S104


def clash(first: Address, second: Address) -> bool:
    """Whether two addresses cannot both be listened on, as far as that can be told without resolving names."""
    if isinstance(first, UnixAddress) or isinstance(second, UnixAddress):
        return _same_file(first, second)
    if first.port != second.port or first.port == 0:
        return False
    pairs = [(a, b) for a in _hosts(first) for b in _hosts(second)]
    return any(a == b or _ANY.get(a, 0) == _version(b) or _ANY.get(b, 0) == _version(a) for a, b in pairs)


def loops(bind: Address, target: Destination) -> bool:
    """Whether dialling `target` reaches the very socket that listens on `bind`, as far as that can be told."""
    if isinstance(target, SrvAddress):
        return False
    if isinstance(bind, UnixAddress) or isinstance(target, UnixAddress):
        return _same_file(bind, target)
    if bind.port != target.port:
        return False
    pairs = [(a, b) for a in _hosts(bind) for b in _hosts(target)]
    return any(a == b or (_ANY.get(a, 0) == _version(b) and ipaddress.ip_address(b).is_loopback) for a, b in pairs)


def _same_file(first: Address, second: Address) -> bool:
    both = isinstance(first, UnixAddress) and isinstance(second, UnixAddress)
    return both and os.path.realpath(str(first)[len(UNIX_PREFIX) :]) == os.path.realpath(str(second)[len(UNIX_PREFIX) :])


def _hosts(address: TcpAddress) -> tuple[str, ...]:
    return _HOSTS.get(address.host, (address.host,))


def _version(host: str) -> int:
    """4 or 6; -1 for a name, which equals nothing."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return -1
