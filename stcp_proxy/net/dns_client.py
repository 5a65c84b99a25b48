"""Name servers asked by dnspython: SRV records, and addresses where the configuration names servers of its own.

The library is imported by the first question only: a proxy that needs none of this does not carry it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress, parse_address

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

_T = TypeVar("_T")

_LIFETIME: Final = 10.0
"""Seconds for all servers and attempts of one question."""
_MAX_RECORDS: Final = 256
"""Of one answer; more are not looked at."""


@dataclass(frozen=True, slots=True)
class Host:
    """One address of a host.

    Attributes:
        family: AF_INET or AF_INET6.
        sockaddr: in the form of that family, with a port that means nothing.
    """

    family: int
    sockaddr: Any


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record; see RFC 2782.

    Attributes:
        priority: lower ones first.
        weight: its part among those of one priority.
        host: its target and port.
    """

    priority: int
    weight: int
    host: TcpAddress


@dataclass(frozen=True, slots=True)
class Answer(Generic[_T]):
    """What came back.

    Attributes:
        records: at least one.
        ttl: seconds for which the server vouches for them; infinite where it does not say.
    """

    records: _T
    ttl: float


class NotThere(Exception):
    """The name does not exist, or has no record of the kind: an answer, and no failure of the resolver."""


async def ask_host(host: str, servers: Sequence[TcpAddress]) -> Answer[tuple[Host, ...]]:
    """The IPv4 and IPv6 addresses of `host`.

    Raises:
        NotThere: it has none.
        Exception: dnspython's, when no server answered.
    """
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        answers = await _resolver(servers).resolve_name(host, lifetime=_LIFETIME)
    except (NXDOMAIN, NoAnswer):
        raise NotThere("no such name") from None
    found = []
    ttl = float("inf")
    for answer in answers.values():
        if answer.rrset is not None:
            ttl = min(ttl, answer.rrset.ttl)
    for text, family in answers.addresses_and_families():
        found.append(Host(family, (text, 0) if family == socket.AF_INET else (text, 0, 0, 0)))
    if not found:
        raise NotThere("no address")
    return Answer(tuple(found[:_MAX_RECORDS]), ttl)


async def ask_srv(name: str, servers: Sequence[TcpAddress]) -> Answer[tuple[Service, ...]]:
    """The SRV records of `name`, asked of `servers`, or of the system's where there are none.

    Raises:
        NotThere: it has none, or says that the service is not offered.
        Exception: dnspython's, when no server answered.
    """
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        answer = await _resolver(servers).resolve(name, "SRV", lifetime=_LIFETIME, search=not servers)
    except (NXDOMAIN, NoAnswer):
        raise NotThere("no such SRV record") from None
    records = []
    for record in list(answer)[:_MAX_RECORDS]:
        with contextlib.suppress(ConfigError):  # a target that is no host name, or ".": not offered there
            host = parse_address(f"{record.target.to_text(omit_final_dot=True)}:{record.port}", role="to")
            if isinstance(host, TcpAddress):
                records.append(Service(record.priority, record.weight, host))
    if not records:
        raise NotThere("its SRV records say that the service is not offered")
    assert answer.rrset is not None  # noqa: S101
    return Answer(tuple(records), float(answer.rrset.ttl))


def _resolver(servers: Sequence[TcpAddress]) -> Resolver:
    """Made for each question: so a changed /etc/resolv.conf is found."""
    from dns.asyncresolver import Resolver
    from dns.nameserver import Do53Nameserver

    resolver = Resolver(configure=not servers)
    if servers:
        resolver.nameservers = [Do53Nameserver(server.host, server.port) for server in servers]
    return resolver
