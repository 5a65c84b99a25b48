"""A cache of host names and SRV names: one lookup serves all connections of the process.

`getaddrinfo` does not say for how long an answer is valid, and it needs a thread. So an answer is cached for `ttl` seconds, or
less where the name server says so. All connections that want it meanwhile share one lookup:

    fresh           returned at once; in the last fifth of its time it is looked up again in the background
    expired         a new answer is awaited; with an old answer in the cache, for one second only
    resolver down   the old answer is used for `stale` seconds more. Without one the lookup fails at once and is retried with
                    exponential backoff; a connection without another target waits for the retry (`insist`)
    "no such name"  is an answer, and replaces the old one

A lookup is a task of its own: a waiting connection can be cancelled, and the answer is cached all the same.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import trio

from stcp_proxy.net import dns_client
from stcp_proxy.net.address import Address, SrvAddress, TcpAddress, UnixAddress
from stcp_proxy.net.cached_answer import Ask, CachedAnswer
from stcp_proxy.net.dial import Failure, SocketAddress
from stcp_proxy.net.dns_client import Answer, Host, NotThere, Publish, Service
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.shortage import lacks_descriptors
from stcp_proxy.net.zone import numeric_sockaddr

_T = TypeVar("_T")

_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NO_SUCH_NAME: Final = {socket.EAI_NONAME, socket.EAI_NODATA}
_MAX_ENTRIES: Final = 4096


@dataclass(frozen=True, slots=True)
class ResolvedAddress:
    """One concrete address behind a configured one.

    Attributes:
        address: what to dial.
        priority: lower ones first (RFC 2782); 0 for what is no SRV record.
        weight: its part among those of one priority; 1 for what is no SRV record.
    """

    address: SocketAddress
    priority: int = 0
    weight: int = 1


class NameCache:
    """The names of one process.

    Args:
        settings: how to look them up.
    """

    def __init__(self, settings: DnsSettings) -> None:
        self.settings: Final = settings
        self._hosts: dict[str, CachedAnswer[tuple[Host, ...]]] = {}
        self._services: dict[str, CachedAnswer[tuple[Service, ...]]] = {}
        self._made: dict[TcpAddress, tuple[tuple[Host, ...], list[ResolvedAddress]]] = {}

    async def hosts(self, address: TcpAddress, deadline: float) -> list[ResolvedAddress] | Failure:
        """The addresses of a host name, as `options` returns them, but never an expired answer in place of a new one."""
        return fixed(address) or await self._host(address, deadline, insist=False, stand_in=False)

    async def options(
        self, address: Address | SrvAddress, deadline: float, *, insist: bool = False
    ) -> list[ResolvedAddress] | Failure:
        """The concrete addresses behind a configured one, each once.

        Args:
            address: as configured.
            deadline: until when to wait, on Trio's clock.
            insist: wait for a retry where the last lookup failed; for a connection that has no other target.
        """
        if isinstance(address, SrvAddress):
            return await self._srv(address, deadline, insist)
        if isinstance(address, UnixAddress):
            return fixed(address)
        return fixed(address) or await self._host(address, deadline, insist)

    async def _srv(self, address: SrvAddress, deadline: float, insist: bool) -> list[ResolvedAddress] | Failure:
        services = await self._entry(self._services, address.name, self._ask_srv).get(deadline, insist)
        if isinstance(services, Failure):
            return services
        options: dict[SocketAddress, ResolvedAddress] = {}
        failure: Failure | None = None
        for service in services:
            found = fixed(service.host) or await self._host(service.host, deadline, insist)
            if isinstance(found, Failure):
                failure = found
            else:
                for option in found:
                    options.setdefault(option.address, ResolvedAddress(option.address, service.priority, service.weight))
        return list(options.values()) or failure or Failure(str(address), 0, "none of its SRV records can be used")

    async def _host(
        self, address: TcpAddress, deadline: float, insist: bool, *, stand_in: bool = True
    ) -> list[ResolvedAddress] | Failure:
        hosts = await self._entry(self._hosts, address.host, self._ask_host).get(deadline, insist, stand_in=stand_in)
        if isinstance(hosts, Failure):
            return replace(hosts, name=str(address))
        known, options = self._made.get(address, (None, []))
        if known is not hosts:
            options = [ResolvedAddress(_place(host.family, host.sockaddr, address.port)) for host in hosts]
            if len(self._made) >= _MAX_ENTRIES:  # ports that SRV records made up
                self._made.clear()
            self._made[address] = hosts, options
        return options

    def invalidate(self, address: Address | SrvAddress) -> None:
        """Expire the answer for `address`: a connection to it failed, so the next request starts a new lookup."""
        if isinstance(address, SrvAddress):
            entry = self._services.get(address.name)
            if entry is not None:
                entry.expire()
                for service in entry.records or ():
                    self.invalidate(service.host)
        elif isinstance(address, TcpAddress) and address.host in self._hosts:
            self._hosts[address.host].expire()

    def _entry(self, entries: dict[str, CachedAnswer[_T]], name: str, ask: Ask[_T]) -> CachedAnswer[_T]:
        entry = entries.get(name)
        if entry is None:
            if len(entries) >= _MAX_ENTRIES:  # names that name servers made up; those of the file are asked for again
                entries.clear()
                self._made.clear()
            entry = entries[name] = CachedAnswer(name, ask, self.settings)
        return entry

    async def _ask_host(self, host: str, publish: Publish) -> Answer[tuple[Host, ...]]:
        if "%" in host:
            return _ask_interface(host)
        with _own_shortage():
            if self.settings.servers:
                return await dns_client.ask_host(host, self.settings.servers, publish)
            return await _ask_system(host)

    async def _ask_srv(self, name: str, _publish: object) -> Answer[tuple[Service, ...]]:
        with _own_shortage():
            return await dns_client.ask_srv(name, self.settings.servers)


@contextlib.contextmanager
def _own_shortage() -> Iterator[None]:
    """Raise OverLimit in place of any failure that a lack of descriptors may explain: resolvers do not tell it apart."""
    try:
        yield
    except Exception:
        lack = lacks_descriptors()
        if lack is not None:
            raise lack from None
        raise


def _ask_interface(host: str) -> Answer[tuple[Host, ...]]:
    """A link-local address with the index that its interface has now: an interface may come late, and come back with another."""
    try:
        return Answer((Host(socket.AF_INET6, numeric_sockaddr(host, 0)),), float("inf"))
    except OSError:
        raise NotThere(f"this machine has no interface {host.partition('%')[2]}") from None


async def _ask_system(host: str) -> Answer[tuple[Host, ...]]:
    """Ask the system's resolver, which reads /etc/hosts and applies search domains."""
    try:
        found = await trio.socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        if exc.errno in _NO_SUCH_NAME:
            raise NotThere(exc.strerror) from None
        raise
    return Answer(tuple(dict.fromkeys(Host(int(family), sockaddr) for family, _, _, _, sockaddr in found)), float("inf"))


def fixed(address: Address | SrvAddress) -> list[ResolvedAddress]:
    """The concrete addresses behind what is no name; none for a name, and for an address whose interface may change.

    `localhost` is the loopback address by definition (RFC 6761).
    """
    if isinstance(address, UnixAddress):
        return [ResolvedAddress(SocketAddress(socket.AF_UNIX, address.path))]
    if isinstance(address, SrvAddress):
        return []
    if address.host == "localhost":
        return [ResolvedAddress(SocketAddress(family, (text, address.port))) for family, text in _LOOPBACK]
    # As `parse_address` has it: what ends in a number is an address.
    if "%" in address.host:
        return []
    if ":" not in address.host and not address.host.rpartition(".")[2].isdigit():
        return []
    found = socket.getaddrinfo(address.host.encode(), address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [ResolvedAddress(SocketAddress(int(family), sockaddr)) for family, _, _, _, sockaddr in found]


def _place(family: int, sockaddr: tuple[Any, ...], port: int) -> SocketAddress:
    text, _, *rest = sockaddr
    return SocketAddress(family, (text, port, *rest))


# -- the names of this run -------------------------------------------------------------------------------------------------

_names: Final[trio.lowlevel.RunVar[Any]] = trio.lowlevel.RunVar("stcp_proxy.net.name_cache")


def configure(settings: DnsSettings) -> None:
    """Set how this Trio run looks names up. The cache stays where the settings are the same."""
    if current().settings != settings:
        _names.set(NameCache(settings))


def current() -> NameCache:
    """The names of this Trio run."""
    try:
        found: NameCache = _names.get()
    except LookupError:
        found = NameCache(DnsSettings())
        _names.set(found)
    return found
