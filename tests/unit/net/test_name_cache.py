"""Names looked up once for everybody: for how long, by how many, and what stands in for a dead resolver. The clock jumps."""

from __future__ import annotations

import ipaddress
import itertools
import socket
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.net import name_cache
from stcp_proxy.net.address import Destination, SrvAddress, TcpAddress, UnixAddress
from stcp_proxy.net.dial import Failure, SocketAddress
from stcp_proxy.net.dns_client import Answer, NotThere, Service
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.name_cache import NameCache, ResolvedAddress, fixed
from stcp_proxy.upstream.route_names import look_up

DB = TcpAddress("db.test", 7443)


class Resolver(trio.abc.HostnameResolver):
    """The system's, with a table. What is asked takes `seconds`."""

    def __init__(self) -> None:
        self.table: dict[str, list[str] | socket.gaierror] = {"db.test": ["10.0.0.1"]}
        self.seconds = 0.0
        self.asked = 0

    async def getaddrinfo(self, host: bytes | None, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        await trio.sleep(self.seconds)
        found = self.table.get((host or b"").decode(), socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(found, socket.gaierror):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


DOWN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


@pytest.fixture
async def resolver() -> Resolver:
    found = Resolver()
    trio.socket.set_custom_hostname_resolver(found)
    return found


async def ask(known: NameCache, address: Destination = DB, *, seconds: float = 10.0, insist: bool = False) -> list[str] | str:
    """The addresses, or the words of the failure."""
    found = await known.options(address, trio.current_time() + seconds, insist=insist)
    return found.words if isinstance(found, Failure) else [str(option.address) for option in found]


async def test_many_at_once_are_one_lookup(autojump_clock: MockClock, resolver: Resolver) -> None:
    known, found = NameCache(DnsSettings()), []
    resolver.seconds = 0.1

    async def one() -> None:
        found.append(await ask(known))

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(one)
    assert found == [["10.0.0.1:7443"]] * 500
    assert resolver.asked == 1


async def test_an_answer_has_its_time(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings(ttl=5))
    await ask(known)
    resolver.table["db.test"] = ["10.0.0.2"]
    await trio.sleep(3.9)
    assert await ask(known) == ["10.0.0.1:7443"]
    await trio.sleep(1.2)
    assert await ask(known) == ["10.0.0.2:7443"]
    assert resolver.asked == 2


async def test_wanted_names_are_looked_up_ahead(autojump_clock: MockClock, resolver: Resolver) -> None:
    """Whoever wants a name that is in steady use waits for no lookup."""
    known = NameCache(DnsSettings(ttl=5))
    await ask(known)
    resolver.seconds = 0.4
    for _ in range(200):
        await trio.sleep(0.1)
        before = trio.current_time()
        await ask(known)
        assert trio.current_time() == before
    assert resolver.asked in (5, 6)  # each after four fifths of the time of the one before, and as long as it takes


async def test_a_ttl_of_zero_asks_each_time(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings(ttl=0))
    for _ in range(3):
        await trio.sleep(1)
        await ask(known)
    assert resolver.asked == 3


async def test_doubt_asks_again_but_not_for_ever(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings(ttl=60))
    await ask(known)
    await trio.sleep(1)
    resolver.table["db.test"] = ["10.0.0.2"]
    known.invalidate(DB)
    assert await ask(known) == ["10.0.0.2:7443"]
    for _ in range(100):
        known.invalidate(DB)
        await ask(known)
    assert resolver.asked == 2
    known.invalidate(TcpAddress("unheard.test", 1))
    known.invalidate(UnixAddress("/tmp/a"))


async def test_an_old_answer_stands_in_for_a_resolver_that_is_down(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings(ttl=5, stale=100))
    await ask(known)
    resolver.table["db.test"] = DOWN
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            await trio.sleep(9)
            assert await ask(known) == ["10.0.0.1:7443"]
        await trio.sleep(20)
        assert await ask(known) == "cannot resolve db.test: Temporary failure in name resolution"
        resolver.table["db.test"] = ["10.0.0.3"]
        assert await ask(known, insist=True) == ["10.0.0.3:7443"]
    assert [line["event"] for line in logs] == ["name lookup failed", "name lookup works again"]
    assert "answer of 9 s ago" in logs[0]["meanwhile"]


async def test_no_such_name_is_an_answer(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings(ttl=5))
    await ask(known)
    del resolver.table["db.test"]
    await trio.sleep(6)
    assert await ask(known) == "cannot resolve db.test: Name or service not known"


async def test_a_silent_resolver_holds_up_one_and_not_the_next(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings())
    resolver.seconds = 1000
    start = trio.current_time()
    assert await ask(known, seconds=4) == "resolving db.test took too long"
    assert trio.current_time() - start == pytest.approx(4)
    for _ in range(100):
        assert await ask(known, seconds=4) == "resolving db.test took too long"
    assert trio.current_time() - start == pytest.approx(4)
    assert await ask(known, seconds=4, insist=True) == "resolving db.test took too long"
    assert trio.current_time() - start == pytest.approx(8)
    assert resolver.asked == 1


async def test_a_waiter_in_a_hurry_speaks_for_itself_alone(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings())
    resolver.seconds = 0.5
    assert await ask(known, seconds=0.01) == "resolving db.test took too long"
    assert await ask(known) == ["10.0.0.1:7443"]
    assert resolver.asked == 1


async def test_a_slow_resolver_is_not_waited_for_where_there_is_an_old_answer(
    autojump_clock: MockClock, resolver: Resolver
) -> None:
    known = NameCache(DnsSettings(ttl=5))
    await ask(known)
    await trio.sleep(6)
    resolver.seconds = 15
    resolver.table["db.test"] = ["10.0.0.2"]
    start = trio.current_time()
    assert await ask(known) == ["10.0.0.1:7443"]
    assert trio.current_time() - start <= 1.0
    assert await ask(known) == ["10.0.0.1:7443"]
    assert trio.current_time() - start <= 1.0
    await trio.sleep(15)
    assert await ask(known) == ["10.0.0.2:7443"]


async def test_failed_lookups_are_spaced_out(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings())
    resolver.table["db.test"] = DOWN
    for _ in range(600):
        await ask(known)
        await trio.sleep(0.1)
    assert 60 / 3.1 < resolver.asked < 30


async def test_a_cancelled_waiter_does_not_end_the_lookup(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings())
    resolver.seconds = 1
    with trio.move_on_after(0.5):
        await ask(known)
    assert await ask(known) == ["10.0.0.1:7443"]
    assert resolver.asked == 1


async def test_whatever_goes_wrong_is_a_failed_lookup(
    autojump_clock: MockClock, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(resolver, "getaddrinfo", broken)
    assert await ask(NameCache(DnsSettings())) == "cannot resolve db.test: oops"


async def test_the_same_answer_is_the_same_list(autojump_clock: MockClock, resolver: Resolver) -> None:
    """So that nobody has to compare it."""
    known = NameCache(DnsSettings())
    first = await known.options(DB, 100)
    assert await known.options(DB, 100) is first


async def test_what_is_no_name_needs_no_resolver(autojump_clock: MockClock, resolver: Resolver) -> None:
    known = NameCache(DnsSettings())
    assert await ask(known, TcpAddress("10.1.2.3", 5)) == ["10.1.2.3:5"]
    assert await ask(known, TcpAddress("2001:db8::1", 5)) == ["[2001:db8::1]:5"]
    assert await ask(known, TcpAddress("localhost", 5)) == ["127.0.0.1:5", "[::1]:5"]
    assert await ask(known, UnixAddress("/run/a.sock")) == ["unix:/run/a.sock"]
    assert resolver.asked == 0


async def test_a_zone_is_looked_up_among_the_interfaces(autojump_clock: MockClock, resolver: Resolver) -> None:
    """Each time: an interface may come after the start, and may return with another index."""
    known = NameCache(DnsSettings(ttl=0, servers=(TcpAddress("192.0.2.1", 53),)))
    address = TcpAddress("fe80::1%lo", 5)
    assert fixed(address) == []
    assert await known.options(address, 100) == [ResolvedAddress(SocketAddress(socket.AF_INET6, ("fe80::1", 5, 0, 1)))]
    assert await known.options(TcpAddress("fe80::1%7", 5), 100) == [
        ResolvedAddress(SocketAddress(socket.AF_INET6, ("fe80::1", 5, 0, 7)))
    ]
    assert (
        await ask(known, TcpAddress("fe80::1%nosuch", 5)) == "cannot resolve fe80::1%nosuch: this machine has no interface nosuch"
    )
    assert resolver.asked == 0


async def test_no_old_answer_stands_in_where_a_route_asks(autojump_clock: MockClock, resolver: Resolver) -> None:
    """A route by name counts the minutes itself for which the last answer holds; `stale` may be hours."""
    host = TcpAddress("db.test", 1)
    name_cache.configure(DnsSettings(ttl=1, stale=7200))
    assert await look_up("db.test") == [ipaddress.ip_address("10.0.0.1")]
    assert await name_cache.current().hosts(TcpAddress("10.0.0.9", 1), 100) == fixed(TcpAddress("10.0.0.9", 1))
    resolver.table["db.test"] = DOWN
    await trio.sleep(60)
    assert isinstance(await look_up("db.test"), Failure)
    await trio.sleep(60)
    assert isinstance(await name_cache.current().options(host, trio.current_time() + 1), list)  # for who dials it still does
    resolver.table["db.test"], resolver.seconds = ["10.0.0.2"], 3.0
    await trio.sleep(60)
    await look_up("db.test")
    await trio.sleep(60)
    assert await look_up("db.test") == [ipaddress.ip_address("10.0.0.2")]  # waited for, however long the old one is there


# -- SRV -------------------------------------------------------------------------------------------------------------------


async def test_srv_records_lead_to_addresses(
    autojump_clock: MockClock, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver.table["b.test"] = ["10.0.0.2", "10.0.0.3"]
    asked = 0

    async def ask_srv(name: str, servers: object) -> Answer[tuple[Service, ...]]:
        nonlocal asked
        asked += 1
        if name == "_none._tcp.test":
            raise NotThere("no such SRV record")
        hosts = [("db.test", 1), ("b.test", 2), ("gone.test", 3), ("10.9.9.9", 4)]
        return Answer(tuple(Service(at, at * 10, TcpAddress(*host)) for at, host in enumerate(hosts)), 1.0)

    monkeypatch.setattr(name_cache.dns_client, "ask_srv", ask_srv)
    known = NameCache(DnsSettings(ttl=60))
    found = await known.options(SrvAddress("_stcp._tcp.test"), 100)
    assert found == [
        ResolvedAddress(SocketAddress(socket.AF_INET, ("10.0.0.1", 1)), 0, 0),
        ResolvedAddress(SocketAddress(socket.AF_INET, ("10.0.0.2", 2)), 1, 10),
        ResolvedAddress(SocketAddress(socket.AF_INET, ("10.0.0.3", 2)), 1, 10),
        ResolvedAddress(SocketAddress(socket.AF_INET, ("10.9.9.9", 4)), 3, 30),
    ]
    await trio.sleep(0.9)
    await known.options(SrvAddress("_stcp._tcp.test"), 100)
    assert asked == 1
    await trio.sleep(0.2)  # the server's own TTL is shorter than what is configured
    await known.options(SrvAddress("_stcp._tcp.test"), 100)
    assert asked == 2
    assert await ask(known, SrvAddress("_none._tcp.test")) == "cannot resolve _none._tcp.test: no such SRV record"
    del resolver.table["db.test"], resolver.table["b.test"]


async def test_ports_that_keep_changing_fill_no_memory(
    autojump_clock: MockClock, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server can give one host another port with every answer."""
    monkeypatch.setattr(name_cache, "_MAX_ENTRIES", 10)
    ports = itertools.count(1)

    async def ask_srv(name: str, servers: object) -> Answer[tuple[Service, ...]]:
        return Answer(tuple(Service(0, 1, TcpAddress("db.test", next(ports))) for _ in range(4)), 1.0)

    monkeypatch.setattr(name_cache.dns_client, "ask_srv", ask_srv)
    known = NameCache(DnsSettings())
    for _ in range(10):
        found = await known.options(SrvAddress("_stcp._tcp.test"), trio.current_time() + 10)
        assert isinstance(found, list)
        assert len(found) == 4
        await trio.sleep(2)
    assert next(ports) > 30
    assert len(known._made) <= 10


# -- the names of a run ----------------------------------------------------------------------------------------------------


async def test_unchanged_settings_keep_what_is_known() -> None:
    first = name_cache.current()
    name_cache.configure(DnsSettings())
    assert name_cache.current() is first
    name_cache.configure(DnsSettings(ttl=1))
    assert name_cache.current() is not first
