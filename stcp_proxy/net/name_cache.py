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
import errno
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeAlias, TypeVar

import structlog
import trio

from stcp_proxy.errors import OverLimit
from stcp_proxy.net import dns_client
from stcp_proxy.net.address import Address, SrvAddress, TcpAddress, UnixAddress
from stcp_proxy.net.dial import Failure, SocketAddress
from stcp_proxy.net.dns_client import Answer, Host, NotThere, Publish, Service
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.shortage import lacks_descriptors
from stcp_proxy.net.zone import numeric_sockaddr

_T = TypeVar("_T")
_log = structlog.get_logger("stcp_proxy.names")

_PREFETCH: Final = 0.2
"""The last part of an answer's time, in which a request for it starts a lookup in the background."""
_PATIENCE: Final = 1.0
"""Seconds to wait for a new answer when an old one is in the cache."""
_FIRST_PAUSE: Final = 0.25
"""Seconds between two lookups of one name. After a failed lookup the pause doubles with every further failure."""
_LONGEST_PAUSE: Final = 3.0
_LOOPBACK: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_NO_SUCH_NAME: Final = {socket.EAI_NONAME, socket.EAI_NODATA}
_LEAST_TTL: Final = 1.0
"""Seconds for which an answer is used at least, even where its server says less."""
_LOOKUP_LIMIT: Final = 20.0
"""Seconds after which a lookup counts as failed, although its thread may go on."""
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
        self._hosts: dict[str, _Entry[tuple[Host, ...]]] = {}
        self._services: dict[str, _Entry[tuple[Service, ...]]] = {}
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

    def _entry(self, entries: dict[str, _Entry[_T]], name: str, ask: _Ask[_T]) -> _Entry[_T]:
        entry = entries.get(name)
        if entry is None:
            if len(entries) >= _MAX_ENTRIES:  # names that name servers made up; those of the file are asked for again
                entries.clear()
                self._made.clear()
            entry = entries[name] = _Entry(name, ask, self.settings)
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


_Ask: TypeAlias = Callable[[str, Callable[[Answer[_T]], None]], Awaitable[Answer[_T]]]
"""Looks a name up, and may publish a part of the answer that comes before the rest."""


class _Entry(Generic[_T]):
    """The cache entry of one name: its last answer, its last failure, and the lookup in progress."""

    def __init__(self, name: str, ask: _Ask[_T], settings: DnsSettings) -> None:
        self._name = name
        self._ask = ask
        self._settings = settings
        self.records: _T | None = None
        self._started_at = self._asked_at = self._prefetch_at = self._fresh_until = self._usable_until = float("-inf")
        self._failure: Failure | None = None
        self._failures = 0
        self._answered_at = self._ask_again_at = float("-inf")
        self._under_way: trio.Event | None = None

    def expire(self) -> None:
        """Start a new lookup before this answer is used again, unless the answer is newer than `_FIRST_PAUSE`."""
        if trio.current_time() >= self._asked_at + _FIRST_PAUSE:
            self._fresh_until = self._prefetch_at = float("-inf")

    async def get(self, deadline: float, insist: bool, *, stand_in: bool = True) -> _T | Failure:
        now = trio.current_time()
        if self.records is not None and now < self._fresh_until:
            if now >= self._prefetch_at:
                self._start()
            return self.records
        if now >= self._ask_again_at or (insist and now >= self._asked_at + _FIRST_PAUSE):
            self._start()
        under_way = self._under_way
        if under_way is None or (self._failure is not None and not insist):
            return self._told(self._failure, stand_in)
        has_other = stand_in and self._old() is not None
        with trio.move_on_at(min(deadline, now + _PATIENCE) if has_other else deadline):
            await under_way.wait()
            return self._told(self._failure, stand_in)
        failure = Failure(self._name, errno.ETIMEDOUT, f"resolving {self._name} took too long")
        if trio.current_time() >= self._started_at + _PATIENCE:
            self._failure = failure  # the next ones need not find out for themselves
        return self._told(failure, stand_in)

    def _told(self, failure: Failure | None, stand_in: bool) -> _T | Failure:
        if failure is None:
            assert self.records is not None  # noqa: S101  (a lookup has ended, and not in failure)
            return self.records
        old = self._old() if stand_in else None
        return failure if old is None else old

    def _old(self) -> _T | None:
        return self.records if trio.current_time() < self._usable_until else None

    def _start(self) -> None:
        if self._under_way is None or self._under_way.is_set():
            self._under_way, self._started_at = trio.Event(), trio.current_time()
            trio.lowlevel.spawn_system_task(self._look_up, self._under_way)

    async def _look_up(self, done: trio.Event) -> None:
        """Look the name up and store the result. Every exception is a failed lookup: a system task may not raise."""
        failure = Failure(self._name, errno.ETIMEDOUT, f"resolving {self._name} took too long")
        answer: Answer[_T] | None = None
        try:
            with trio.move_on_after(_LOOKUP_LIMIT):
                answer = await self._ask(self._name, functools.partial(self._publish, done))
        except NotThere as exc:
            self.records = None
            failure = Failure(self._name, 0, f"cannot resolve {self._name}: {exc}")
        except OverLimit as exc:
            failure = Failure(self._name, 0, f"cannot resolve {self._name}: {exc.what}", lack=exc)
        except Exception as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
            failure = Failure(self._name, 0, f"cannot resolve {self._name}: {reason}")
        if self._under_way is not done:
            return  # a part of the answer was published, and a newer lookup has begun since then
        self._under_way = None
        self._asked_at = now = trio.current_time()
        if answer is None:
            self._note_failure(failure, now)
        else:
            self._note_answer(answer, now)
        done.set()

    def _publish(self, done: trio.Event, answer: Answer[_T]) -> None:
        """Use a part of the answer while the rest is still to come."""
        if self._under_way is done:
            self._asked_at = trio.current_time()
            self._note_answer(answer, self._asked_at)
            done.set()

    def _note_failure(self, failure: Failure, now: float) -> None:
        self._failure = failure
        self._failures += 1
        self._ask_again_at = now + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16))
        if self._failures == 1:
            old = None if self._old() is None else f"the answer of {now - self._answered_at:.0f} s ago is used"
            _log.warning("name lookup failed", name=self._name, why=failure.words, meanwhile=old or "there is no older answer")

    def _note_answer(self, answer: Answer[_T], now: float) -> None:
        if self._failures:
            _log.info("name lookup works again", name=self._name)
        ttl = min(self._settings.ttl, max(answer.ttl, _LEAST_TTL))
        if self.records != answer.records:  # the same answer stays the same object: nobody has to compare it again
            self.records = answer.records
        self._failure, self._failures = None, 0
        self._answered_at, self._ask_again_at = now, float("-inf")
        self._fresh_until, self._prefetch_at = now + ttl, now + ttl * (1 - _PREFETCH)
        self._usable_until = self._fresh_until + self._settings.stale


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
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
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
