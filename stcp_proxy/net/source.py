"""The source of a connection: the unit in which strangers are counted, because they can choose everything else.

- A *host* is an IPv4 address, or an IPv6 network of 64 bits: one machine can use every address of that network.
- A *network* is an IPv4 network of 24 bits or an IPv6 network of 48 bits: the smallest that the Internet routes by itself, and so
  the smallest that an attacker usually gets at a time.

Honest hosts share a network, as in a rack or a cluster, so a network alone would let one bad neighbour speak for all of it. Fair
shares therefore have two steps: first among networks, then among the hosts of one network.
"""

from __future__ import annotations

import functools
import socket
from typing import Any, Final, NamedTuple

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""The beginning of an IPv4 address that is written as an IPv6 address (RFC 4291, section 2.5.5.2)."""


class Source(NamedTuple):
    """Where a connection comes from.

    Attributes:
        network: the network of its host.
        host: its host; both are empty for a unix socket.
    """

    network: str
    host: str


UNIX: Final = Source("", "")


def source_of(address: Any) -> Source:
    """The source behind a socket address.

    Args:
        address: a socket address as the socket module gives it.
    """
    return source_of_host(address[0]) if isinstance(address, tuple) else UNIX


def source_of_client(text: str) -> Source:
    """The source behind the text of a socket address, as `net.address.describe_sockaddr` writes it."""
    return source_of_host(text.rpartition(":")[0].strip("[]"))


@functools.lru_cache(maxsize=1024)
def source_of_host(host: str) -> Source:
    """The source behind an IP address, with or without a zone; any other text counts as a unix socket."""
    if ":" not in host:
        network, dot, _ = host.rpartition(".")
        return Source(f"{network}.0/24", host) if dot else UNIX
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return UNIX
    if packed.startswith(_MAPPED):
        return source_of_host(socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :]))
    return Source(_ipv6_network(packed, 48), _ipv6_network(packed, 64))


def _ipv6_network(packed: bytes, bits: int) -> str:
    kept = bits // 8
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:kept] + bytes(16 - kept))}/{bits}"
