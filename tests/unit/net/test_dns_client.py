"""Both families of a name at once: which answer is taken, how long the other is waited for, and when a name does not exist."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dns.message
import pytest
import trio
from dns.exception import Timeout
from dns.resolver import NXDOMAIN, NoAnswer, NoNameservers
from trio.testing import MockClock

from stcp_proxy.net import dns_client, name_cache
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.dns_client import GRACE, Answer, Host, NotThere, ask_host
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.name_cache import NameCache

SERVERS = (TcpAddress("192.0.2.53", 53),)
NO_ANSWER = NoAnswer(response=dns.message.Message())
ERRORS = [NXDOMAIN(), NO_ANSWER, NoNameservers(), Timeout(), OSError(113, "No route to host")]


@dataclass
class Records:
    """An answer of dnspython's."""

    addresses: list[str]
    ttl: float = 60.0

    @property
    def rrset(self) -> Records:
        return self

    def __iter__(self) -> Any:
        return (type("Record", (), {"address": address})() for address in self.addresses)


@dataclass
class Servers:
    """Name servers with an answer, or an exception, and its delay for each type of record."""

    table: dict[str, tuple[float, Records | Exception]]
    asked: list[tuple[float, str]] = field(default_factory=list)

    async def resolve(self, host: str, kind: str, *, lifetime: float, search: bool) -> Records:
        assert not search
        self.asked.append((trio.current_time(), kind))
        seconds, answer = self.table[kind]
        await trio.sleep(min(seconds, lifetime))
        if seconds > lifetime:
            raise Timeout
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    found = Servers({"A": (0.0, Records(["10.0.0.1"])), "AAAA": (0.0, Records(["2001:db8::1"], ttl=7))})
    monkeypatch.setattr(dns_client, "_resolver", lambda _servers: found)
    return found


async def ask(host: str = "db.test") -> tuple[Answer[tuple[Host, ...]], list[list[str]]]:
    """The answer, and what was published before."""
    published: list[list[str]] = []
    answer = await ask_host(host, SERVERS, lambda part: published.append(texts(part)))
    return answer, published


def texts(answer: Answer[tuple[Host, ...]]) -> list[str]:
    return [host.sockaddr[0] for host in answer.records]


async def test_both_families_are_asked_at_once(autojump_clock: MockClock, servers: Servers) -> None:
    answer, published = await ask()
    assert texts(answer) == ["2001:db8::1", "10.0.0.1"]
    assert answer.ttl == 7
    assert published == []
    assert len({at for at, _ in servers.asked}) == 1


@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_one_family_is_enough(autojump_clock: MockClock, servers: Servers, kind: str, error: Exception) -> None:
    servers.table[kind] = (0.0, error)
    answer, _ = await ask()
    assert len(answer.records) == 1
    assert trio.current_time() < GRACE


async def test_a_late_family_joins(autojump_clock: MockClock, servers: Servers) -> None:
    servers.table["AAAA"] = (0.5, Records(["2001:db8::1"]))
    answer, published = await ask()
    assert published == [["10.0.0.1"]]
    assert texts(answer) == ["2001:db8::1", "10.0.0.1"]


async def test_a_family_within_the_grace_is_waited_for(autojump_clock: MockClock, servers: Servers) -> None:
    servers.table["A"] = (GRACE / 2, Records(["10.0.0.1"]))
    answer, published = await ask()
    assert published == []
    assert len(answer.records) == 2


async def test_a_silent_family_ends_the_lookup_in_time(autojump_clock: MockClock, servers: Servers) -> None:
    start = trio.current_time()
    servers.table["AAAA"] = (1000.0, Records([]))
    answer, published = await ask()
    assert texts(answer) == ["10.0.0.1"]
    assert published == [["10.0.0.1"]]
    assert trio.current_time() - start < 2.5


async def test_an_empty_family_does_not_end_the_wait(autojump_clock: MockClock, servers: Servers) -> None:
    """ "No AAAA record" comes first, and the A record a second later."""
    servers.table = {"AAAA": (0.0, NO_ANSWER), "A": (1.0, Records(["10.0.0.1"]))}
    answer, published = await ask()
    assert texts(answer) == ["10.0.0.1"]
    assert published == []


@pytest.mark.parametrize("other", [NXDOMAIN(), NO_ANSWER])
async def test_no_such_name_is_what_both_say(autojump_clock: MockClock, servers: Servers, other: Exception) -> None:
    servers.table = {"A": (0.0, NXDOMAIN()), "AAAA": (0.3, other)}
    with pytest.raises(NotThere, match=r"no such name$"):
        await ask()
    with pytest.raises(NotThere, match="without search domains: write the full name"):
        await ask("db")


@pytest.mark.parametrize("kind", ["A", "AAAA"])
async def test_no_such_name_beside_a_failure_is_a_failure(autojump_clock: MockClock, servers: Servers, kind: str) -> None:
    servers.table = {"A": (0.0, NXDOMAIN()), "AAAA": (0.0, NXDOMAIN())} | {kind: (0.0, NoNameservers())}
    with pytest.raises(NoNameservers):
        await ask()


# -- behind the cache ------------------------------------------------------------------------------------------------------


async def resolve(cache: NameCache) -> list[str] | str:
    found = await cache.options(TcpAddress("db.test", 1), trio.current_time() + 5)
    return found.words if isinstance(found, Failure) else [option.address.sockaddr[0] for option in found]


async def test_nobody_waits_for_a_silent_family(autojump_clock: MockClock, servers: Servers) -> None:
    cache, start = NameCache(DnsSettings(servers=SERVERS)), trio.current_time()
    servers.table["AAAA"] = (1000.0, Records([]))
    assert await resolve(cache) == ["10.0.0.1"]
    assert trio.current_time() - start == pytest.approx(GRACE)


async def test_a_late_family_is_known_to_the_next(autojump_clock: MockClock, servers: Servers) -> None:
    cache = NameCache(DnsSettings(servers=SERVERS))
    servers.table["AAAA"] = (0.5, Records(["2001:db8::1"]))
    assert await resolve(cache) == ["10.0.0.1"]
    await trio.sleep(0.5)
    assert await resolve(cache) == ["2001:db8::1", "10.0.0.1"]
    assert len(servers.asked) == 2


async def test_a_failed_connection_asks_again_although_a_family_is_late(autojump_clock: MockClock, servers: Servers) -> None:
    """The newer lookup counts; what the older one still finds does not."""
    cache = NameCache(DnsSettings(ttl=60, servers=SERVERS))
    servers.table["AAAA"] = (1.0, Records(["2001:db8::1"]))
    assert await resolve(cache) == ["10.0.0.1"]
    await trio.sleep(0.5)
    servers.table = {"A": (0.0, Records(["10.0.0.2"])), "AAAA": (0.0, Records(["2001:db8::2"]))}
    cache.invalidate(TcpAddress("db.test", 1))
    assert await resolve(cache) == ["2001:db8::2", "10.0.0.2"]
    await trio.sleep(5)
    assert await resolve(cache) == ["2001:db8::2", "10.0.0.2"]


async def test_an_old_answer_outlives_a_server_that_denies_one_family(autojump_clock: MockClock, servers: Servers) -> None:
    cache = NameCache(DnsSettings(ttl=1, servers=SERVERS))
    assert await resolve(cache) == ["2001:db8::1", "10.0.0.1"]
    servers.table = {"A": (0.0, NoNameservers()), "AAAA": (0.0, NXDOMAIN())}
    await trio.sleep(2)
    assert await resolve(cache) == ["2001:db8::1", "10.0.0.1"]


async def test_the_same_answer_stays_the_same_object(autojump_clock: MockClock, servers: Servers) -> None:
    cache, address = NameCache(DnsSettings(ttl=1, servers=SERVERS)), TcpAddress("db.test", 1)
    first = await cache.options(address, trio.current_time() + 5)
    await trio.sleep(2)
    assert await cache.options(address, trio.current_time() + 5) is first
    assert len(servers.asked) == 4
    assert name_cache.fixed(address) == []
