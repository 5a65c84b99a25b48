"""The zone of an IPv6 address (RFC 4007): the interface of a link-local address, as in fe80::1%eth0.

A zone goes into socket calls, firewall rules and terminals. So it has a narrow grammar: an interface index, or a name of at most
15 letters, digits, dots, hyphens and underscores. Linux allows more characters in a name; such an interface is written by index.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

ZONE: Final = re.compile(r"[1-9][0-9]{0,8}|(?![0-9]+\Z)[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", re.ASCII)
"""An interface index or an interface name; use `fullmatch`."""

_NEEDS_ZONE: Final = (ipaddress.IPv6Network("fe80::/10"), ipaddress.IPv6Network("ff02::/16"))


class ZoneError(ValueError):
    """An IPv6 address with a zone that it cannot have, or without the zone that it needs.

    Args:
        what: the mistake, fit to follow the quoted address.
        remedy: what to write instead.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def parse_ipv6(text: str) -> str:
    """The canonical text of an IPv6 address, its zone included.

    Raises:
        ZoneError: the zone is missing, malformed, or the address can have none.
        ValueError: `text` is no IPv6 address.
    """
    host, percent, zone = text.partition("%")
    address = ipaddress.IPv6Address(host)
    if not percent:
        if needs_zone(address):
            raise ZoneError(
                "is a link-local address without its interface", remedy=f"write the interface behind it, {address}%eth0"
            )
        return str(address)
    if not needs_zone(address):
        raise ZoneError("has an interface, which only a link-local address can have", remedy="leave out what begins with %")
    if not ZONE.fullmatch(zone):
        raise ZoneError(
            "has no valid interface behind its %", remedy="write a name or an index that 'ip link' shows, like fe80::1%eth0"
        )
    return f"{address}%{zone}"


def needs_zone(address: ipaddress.IPv6Address) -> bool:
    """Whether an address means nothing without an interface."""
    return any(address in network for network in _NEEDS_ZONE)


def scope_id(zone: str) -> int:
    """The interface index that a socket address has for a zone.

    Args:
        zone: as `ZONE` allows it.

    Raises:
        OSError: this machine has no interface of that name.
    """
    return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)


def numeric_sockaddr(host: str, port: int) -> tuple[str, int, int, int]:
    """The socket address of an IPv6 address with a zone.

    Args:
        host: as `parse_ipv6` returns it, with its zone.
        port: 0 to 65535.

    Raises:
        OSError: this machine has no such interface.
    """
    address, _, zone = host.partition("%")
    return address, port, 0, scope_id(zone)
