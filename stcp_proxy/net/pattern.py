"""Patterns of destinations and addresses: which IP addresses, and which of their ports.

    10.1.2.3   10.0.0.0/8:6379   [2001:db8::/32]:1-1024   :443   db.internal:5432

Without a port, every port; without an address, every address of both families. IPv6 stands in brackets, with its prefix length.
The text form is canonical: two spellings of one pattern compare equal.

An IPv4-mapped IPv6 address (::ffff:10.1.2.3) is matched as IPv4, and no IPv6 network covers it.

A name is not looked up here and covers nothing by itself: the caller finds its addresses.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import MAX_PORT, parse_address
from stcp_proxy.redact import shown

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORMS: Final = "write an address, a network or a name, then :port or :first-last, like 10.0.0.0/8:6379 or [2001:db8::/32]:1-1024"
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Some addresses, and some of their ports.

    Attributes:
        network: the addresses; None for all of both families, and where there is a name.
        name: a host name in canonical form; its addresses are the caller's to find.
        first, last: the ports, both included.
    """

    network: IPNetwork | None = None
    name: str | None = None
    first: int = 1
    last: int = MAX_PORT

    def match(self, ip: IPAddress, port: int) -> bool:
        """Whether the pattern covers an address and port.

        Args:
            ip: a mapped IPv6 address is taken for the IPv4 address that it is.
            port: 1 to 65535; 0, which nobody can dial, is never covered.
        """
        return self.has_port(port) and self.covers(ip)

    def covers(self, ip: IPAddress) -> bool:
        """The same for the address alone."""
        return self.name is None and (self.network is None or plain_ip(ip) in self.network)

    def has_port(self, port: int) -> bool:
        """The same for the port alone."""
        return self.first <= port <= self.last

    @property
    def every_port(self) -> bool:
        """Whether it is about addresses alone."""
        return (self.first, self.last) == (1, MAX_PORT)

    def within(self, network: IPNetwork) -> bool:
        """Whether the pattern is about a part of `network` and nothing else, as 127.0.0.1 is of 127.0.0.0/8 and 0.0.0.0/0 is not.
        A name never is: its addresses change without the file's knowing."""
        return self.network is not None and self.network.version == network.version and self.network.subnet_of(network)  # type: ignore[arg-type]

    def __str__(self) -> str:
        host = self.name or ""
        if self.network is not None:
            whole = self.network.prefixlen == self.network.max_prefixlen
            host = str(self.network.network_address) if whole else str(self.network)
            host = f"[{host}]" if self.network.version == 6 else host
        if self.every_port:
            return host or f":1-{MAX_PORT}"
        return f"{host}:{self.first}" if self.first == self.last else f"{host}:{self.first}-{self.last}"


def plain_ip(ip: IPAddress) -> IPAddress:
    """`ip` without its zone; a mapped IPv6 address becomes the IPv4 address."""
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))
    return ip


def parse_pattern(text: str) -> Pattern:
    """The pattern that `text` spells.

    Raises:
        ConfigError: with what is wrong, and how to write it.
    """
    host, ports = _split(text)
    first, last = (1, MAX_PORT) if ports is None else _parse_ports(text, ports)
    if not host:
        if ports is None:
            raise ConfigError("an empty text is no pattern", remedy=_FORMS)
        return Pattern(first=first, last=last)
    if host.startswith("[") or "/" in host:
        return Pattern(network=_parse_network(text, host), first=first, last=last)
    name = _parse_host(text, host)
    try:
        return Pattern(network=ipaddress.ip_network(name), first=first, last=last)
    except ValueError:
        return Pattern(name=name, first=first, last=last)


def _split(text: str) -> tuple[str, str | None]:
    """What stands before the colon of the port and behind it; None where there is no such colon."""
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket:
            raise ConfigError(f"{shown(text)} has no closing bracket", remedy=_FORMS)
        if rest.startswith("/"):
            raise ConfigError(f"{shown(text)}: the prefix length goes inside the brackets", remedy=_FORMS)
        if rest and not rest.startswith(":"):
            raise ConfigError(f"{shown(text)}: only a colon and ports can follow the bracket", remedy=_FORMS)
        return host + bracket, rest[1:] if rest else None
    if text.count(":") > 1:
        raise ConfigError(f"{shown(text)} has more than one colon", remedy="put an IPv6 address in brackets, [v6]:port")
    host, colon, ports = text.partition(":")
    return host, ports if colon else None


def _parse_ports(text: str, ports: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(ports)
    if match is None:
        raise ConfigError(f"the port of {shown(text)} is neither a number nor a range", remedy=_FORMS)
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if not 1 <= first <= MAX_PORT or not 1 <= last <= MAX_PORT:
        raise ConfigError(f"the port of {shown(text)} is out of range", remedy=f"ports are 1 to {MAX_PORT}")
    if first > last:
        raise ConfigError(f"the ports of {shown(text)} run backwards", remedy=f"write {last}-{first}")
    return first, last


def _parse_network(text: str, host: str) -> IPNetwork:
    bracketed = host.startswith("[")
    inner = host[1:-1] if bracketed else host
    address, slash, length = inner.partition("/")
    parse = ipaddress.IPv6Address if bracketed else ipaddress.IPv4Address
    try:
        if "%" in address:
            raise ConfigError(f"{shown(text)}: a pattern has no interface", remedy="leave out what begins with %")
        base: IPAddress = parse(address)
    except ValueError:
        what = "no IPv6 address in its brackets" if bracketed else "no IPv4 address before its slash"
        raise ConfigError(f"{shown(text)} has {what}", remedy=_FORMS) from None
    prefix: int = base.max_prefixlen
    if slash:
        if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= prefix):
            raise ConfigError(f"the prefix length of {shown(text)} is not a number from 0 to {prefix}", remedy=_FORMS)
        prefix = int(length)
    network = ipaddress.ip_network((base, prefix), strict=False)
    if network.network_address != base:
        better = f"[{network}]" if bracketed else str(network)
        raise ConfigError(f"{shown(text)} has bits behind its prefix length", remedy=f"write {better}, or the address alone")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        raise ConfigError(f"{shown(text)} is IPv4 written as IPv6", remedy=f"write {mapped}/{network.prefixlen - 96}")
    return network


def _parse_host(text: str, host: str) -> str:
    """A name or IPv4 address in canonical form, held to the rules of any other address."""
    if host == "*":
        raise ConfigError(f"{shown(text)}: every address is written without a star", remedy="write :port")
    try:
        address = parse_address(f"{host}:1", role="bind")  # which, unlike one to dial, may be 0.0.0.0
    except ConfigError as exc:
        raise ConfigError(exc.what.replace(shown(f"{host}:1"), shown(text)), remedy=_FORMS) from None
    return address.host  # type: ignore[union-attr]
