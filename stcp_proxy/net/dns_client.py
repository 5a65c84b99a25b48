"""Name servers asked by dnspython: SRV records, and addresses where the configuration names servers of its own.

The library is imported by the first question only: a proxy that needs none of this does not carry it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import trio

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress, parse_address

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

_T = TypeVar("_T")

_LIFETIME: Final = 10.0
"""Seconds for all servers and attempts of one question."""
_MAX_RECORDS: Final = 256
"""Of one answer; more are not looked at."""
GRACE: Final = 0.05
"""Seconds to wait for the second family when the first has addresses: the resolution delay of RFC 8305."""
_LATEST: Final = 2.0
"""Seconds after that in which the second family may still join the first."""
_RECORDS: Final = {socket.AF_INET6: "AAAA", socket.AF_INET: "A"}
"""The families, in the order in which their addresses are returned."""


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


Publish = Callable[[Answer[tuple[Host, ...]]], None]
"""Takes the addresses of one family while the other family is still to come."""


async def ask_host(host: str, servers: Sequence[TcpAddress], publish: Publish) -> Answer[tuple[Host, ...]]:
    """Look up the IPv4 and IPv6 addresses of `host`, both at once.

    One family is enough: many servers answer questions for AAAA records with an error, or not at all. So a family that fails or
    is late does not hold the other up (RFC 8305, section 3). Only both answers together say that a name has no address.

    Args:
        host: the name. It is asked for as it stands: search domains are the system resolver's.
        servers: name servers to ask.
        publish: called with one family's addresses when the other family is late. What is returned later includes both.

    Raises:
        NotThere: the servers say that the name has no address of either family.
        Exception: dnspython's, when one family was not answered and the other has no address.
    """
    question = _HostQuestion(host, servers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(question.ask, socket.AF_INET6)
        nursery.start_soon(question.ask, socket.AF_INET)
        await question.found.wait()
        with trio.move_on_after(GRACE):
            await question.ended.wait()
        if not question.ended.is_set():
            publish(question.answer())
            with trio.move_on_after(_LATEST):
                await question.ended.wait()
        nursery.cancel_scope.cancel()
    return question.answer()


class _HostQuestion:
    """The two questions for the addresses of a name.

    Attributes:
        found: set when one family has addresses, or both have ended.
        ended: set when both have ended.
    """

    def __init__(self, host: str, servers: Sequence[TcpAddress]) -> None:
        self._host = host
        self._servers = servers
        self._hosts: dict[int, list[Host]] = {}
        self._failures: dict[int, Exception] = {}
        self._ttl = float("inf")
        self.found: Final = trio.Event()
        self.ended: Final = trio.Event()

    async def ask(self, family: socket.AddressFamily) -> None:
        """Ask for the addresses of one family, and note what comes of it."""
        from dns.resolver import NXDOMAIN, NoAnswer

        try:
            answer = await _resolver(self._servers).resolve(self._host, _RECORDS[family], lifetime=_LIFETIME, search=False)
            assert answer.rrset is not None  # noqa: S101
            self._ttl = min(self._ttl, float(answer.rrset.ttl))
            self._hosts[family] = [_host(family, record.address) for record in list(answer)[:_MAX_RECORDS]]
        except (NXDOMAIN, NoAnswer):
            self._hosts[family] = []
        except Exception as exc:
            self._failures[family] = exc
        if len(self._hosts) + len(self._failures) == len(_RECORDS):
            self.ended.set()
        if self.ended.is_set() or self._hosts.get(family):
            self.found.set()

    def answer(self) -> Answer[tuple[Host, ...]]:
        """All addresses until now; raises as `ask_host` does where there are none."""
        hosts = tuple(host for family in _RECORDS for host in self._hosts.get(family, ()))
        if hosts:
            return Answer(hosts, self._ttl)
        for failure in self._failures.values():
            raise failure
        if "." in self._host.rstrip("."):
            raise NotThere("no such name")
        raise NotThere("no such name; the servers in 'dns' are asked without search domains: write the full name")


def _host(family: socket.AddressFamily, text: str) -> Host:
    return Host(family, (text, 0) if family == socket.AF_INET else (text, 0, 0, 0))


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
