"""Which route takes a connection, and what becomes of what none takes."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from collections.abc import Collection

import pytest
import structlog
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.config.auth_plan import PskAuth
from stcp_proxy.config.certificate_plan import Trusted
from stcp_proxy.config.plan import CapturePlan, EngineChoice, InterceptPlan, Mode, RoutePlan, TunnelPlan
from stcp_proxy.errors import NoRoute
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.keys import generate_psk
from stcp_proxy.net import name_cache
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import IPAddress, parse_pattern
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.session import intercept
from stcp_proxy.tunnel.revocation import uncovered
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.upstream.route_names import MOST, PATIENCE, REFRESH, RETRY, RouteName
from stcp_proxy.upstream.routes import InTheClear, Router, Way

AUTH = PskAuth(generate_psk())
CAPTURE = CapturePlan(Interception.REDIRECT, 15001, True, True, False, None, None, (), (), ())
A, B, C = (ipaddress.ip_address(f"10.0.0.{number}") for number in (1, 2, 3))


class Resolver:
    """Answers as told, and counts."""

    def __init__(self, *answer: IPAddress) -> None:
        self.answer: Collection[IPAddress] | Failure = answer
        self.seconds = 0.0
        self.slow: dict[str, float] = {}
        self.names: list[str] = []

    @property
    def asked(self) -> int:
        return len(self.names)

    async def __call__(self, name: str) -> Collection[IPAddress] | Failure:
        self.names.append(name)
        await trio.sleep(self.slow.get(name, self.seconds))
        return self.answer


def make_plan(*matches: str, passing: bool = False) -> TunnelPlan:
    routes = tuple(RoutePlan(parse_pattern(text), (TcpAddress("10.9.9.9", at),), AUTH) for at, text in enumerate(matches, 1))
    intercept = InterceptPlan(routes, passing, CAPTURE)
    plan = TunnelPlan("out", Mode.CONNECT, TcpAddress("localhost", 15001), (), AUTH, (Suite.HYBRID_PSK,), EngineChoice.AUTO)
    object.__setattr__(plan, "intercept", intercept)
    return plan


def router(*matches: str, passing: bool = False, ask: Resolver | None = None, dial_timeout: float = 10) -> Router:
    plan = dataclasses.replace(make_plan(*matches, passing=passing), dial_timeout=dial_timeout)
    return Router(plan, ask=ask or Resolver())


async def test_targets_are_told_with_what_their_route_covers() -> None:
    assert [(match, str(targets.to[0])) for match, targets in router("10.0.0.1:80", "10.1.0.0/16:443").targets] == [
        ("10.0.0.1:80", "10.9.9.9:1"),
        ("10.1.0.0/16:443", "10.9.9.9:2"),
    ]


async def number(found: Router, ip: str | IPAddress, port: int) -> int:
    """Which route it was, from 1; 0 for none."""
    try:
        way = await found.find_route(Endpoint(ipaddress.ip_address(ip), port))
    except NoRoute:
        return 0
    assert isinstance(way, Way)
    assert way.opening.original == Endpoint(ipaddress.ip_address(ip), port)
    address = way.targets.to[0]
    assert isinstance(address, TcpAddress)
    return address.port


async def test_the_first_that_covers_it() -> None:
    found = router("10.0.0.1:80", "10.0.0.0/8:1-1024", "[fd00::/8]", ":443")
    assert [await number(found, ip, port) for ip, port in [("10.0.0.1", 80), ("10.0.0.2", 80), ("fd00::1", 443)]] == [1, 2, 3]
    assert [await number(found, ip, port) for ip, port in [("1.1.1.1", 443), ("::1", 443), ("10.0.0.1", 1025)]] == [4, 4, 0]
    assert await number(found, "::ffff:10.0.0.1", 80) == 1


@given(
    st.lists(st.tuples(st.integers(8, 32), st.integers(1, 50), st.integers(0, 50)), max_size=6),
    st.integers(0, 255),
    st.integers(1, 100),
)
def test_it_is_the_first_of_those_that_match(rules: list[tuple[int, int, int]], last: int, port: int) -> None:
    ip = ipaddress.ip_address(f"10.0.0.{last}")
    networks = [ipaddress.ip_network(("10.0.0.7", length), strict=False) for length, _, _ in rules]
    texts = [f"{network}:{first}-{first + more}" for network, (_, first, more) in zip(networks, rules, strict=True)]
    expected = [0]
    for at, (network, (_, low, more)) in reversed(list(enumerate(zip(networks, rules, strict=True), 1))):
        if ip in network and low <= port <= low + more:
            expected = [at]
    assert trio.run(lambda: number(router(*texts), ip, port)) == expected[0]


async def test_what_none_covers_passes_only_where_the_file_says_so() -> None:
    with pytest.raises(NoRoute, match=r"no route covers 9\.9\.9\.9:9"):
        await router(":80").find_route(Endpoint(ipaddress.ip_address("9.9.9.9"), 9))
    passed = await router(":80", passing=True).find_route(Endpoint(ipaddress.ip_address("9.9.9.9"), 9))
    assert isinstance(passed, InTheClear)


@pytest.mark.parametrize("answer", [[A], Failure("x", 0, "no name server answers")])
async def test_the_port_of_a_route_by_name_is_never_passed(answer: Collection[IPAddress] | Failure) -> None:
    resolver = Resolver()
    resolver.answer = answer
    found = router("db.internal:5432", passing=True, ask=resolver)
    with pytest.raises(NoRoute) as caught:
        await found.find_route(Endpoint(B, 5432))
    assert ("could not be looked up" if isinstance(answer, Failure) else "never passed on") in caught.value.what
    assert isinstance(await found.find_route(Endpoint(B, 5433)), InTheClear)


async def covers(name: RouteName, ip: IPAddress) -> bool:
    return await name.covers(ip, 1.0)


async def test_a_record_that_changes_is_found_at_once_and_the_old_one_fades(autojump_clock: trio.testing.MockClock) -> None:
    name_cache.configure(DnsSettings(keep=60))
    resolver = Resolver(A)
    name = RouteName("x", resolver)
    assert await covers(name, A)
    assert await covers(name, A)
    assert resolver.asked == 1
    resolver.answer = [B]
    assert not await covers(name, B)  # asked a moment ago
    await trio.sleep(RETRY)
    assert await covers(name, B)
    assert await covers(name, A)
    await trio.sleep(50)
    assert await covers(name, A)  # which lets it be looked up again, behind this connection
    await trio.sleep(15)
    assert not await covers(name, A)
    assert await covers(name, B)


async def test_a_known_address_waits_for_no_lookup(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    name = RouteName("x", resolver)
    assert await covers(name, A)
    resolver.seconds = 1000.0
    await trio.sleep(REFRESH + 0.1)
    before = trio.current_time()
    assert await covers(name, A)
    assert trio.current_time() == before
    await trio.testing.wait_all_tasks_blocked()
    assert resolver.asked == 2


async def test_while_no_answer_comes_known_addresses_stay_for_their_time(autojump_clock: trio.testing.MockClock) -> None:
    name_cache.configure(DnsSettings(keep=300))
    resolver = Resolver(A)
    name = RouteName("x", resolver)
    assert await covers(name, A)
    resolver.answer = Failure("x", 0, "silence")
    await trio.sleep(299)
    assert await covers(name, A)
    await trio.sleep(0.5)
    assert name.trouble == "silence"
    await trio.sleep(1)
    assert not await covers(name, A)


async def test_every_address_of_a_rotating_pool_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    pool = [ipaddress.ip_address(f"10.1.0.{number}") for number in range(1, 201)]
    resolver = Resolver()
    name = RouteName("x", resolver)
    for first in range(0, 200, 8):
        resolver.answer = pool[first : first + 8]
        await covers(name, C)
        await trio.sleep(RETRY)
    assert all([await covers(name, ip) for ip in pool])
    assert name.known == 200


async def test_names_that_are_given_ever_new_addresses_fill_no_memory(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver()
    name = RouteName("x", resolver)
    for at in range(0, MOST + 1000, 250):
        resolver.answer = [ipaddress.ip_address(0x0A000000 + at + number) for number in range(250)]
        await covers(name, ipaddress.ip_address("192.0.2.1"))
        await trio.sleep(RETRY)
    assert name.known == MOST
    assert await covers(name, ipaddress.ip_address(0x0A000000 + MOST))


async def test_many_who_ask_are_one_look_up(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    name = RouteName("x", resolver)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(covers, name, A)
    assert resolver.asked == 1


async def test_a_lookup_that_raises_is_one_without_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async def broken(_name: str) -> Failure:
        raise ZeroDivisionError("oops")

    name = RouteName("x", broken)
    assert not await covers(name, A)
    assert name.trouble == "cannot resolve x: oops"


async def test_names_in_front_of_a_number_are_looked_up_together(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver()
    resolver.seconds = 1000.0
    found = router(
        "a.test:80", "b.test:80", "c.test:80", "other.test:81", "10.0.0.1:80", "d.test:80", ask=resolver, dial_timeout=3
    )
    start = trio.current_time()
    assert await number(found, A, 80) == 5
    assert trio.current_time() - start == pytest.approx(1.5)  # of three: the rest is for the connection
    assert sorted(resolver.names) == ["a.test", "b.test", "c.test"]
    assert await number(found, A, 80) == 5
    assert trio.current_time() - start == pytest.approx(1.5)  # the next ones need not find out for themselves


async def test_a_long_dial_timeout_does_not_make_names_wait_longer(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver()
    resolver.seconds = 1000.0
    start = trio.current_time()
    assert await number(router("a.test:80", "10.0.0.1:80", ask=resolver, dial_timeout=60), A, 80) == 2
    assert trio.current_time() - start == pytest.approx(PATIENCE)


async def test_the_first_route_counts_however_fast_the_second_answers(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    resolver.slow = {"a.test": 1.0}
    assert await number(router("a.test:80", "b.test:80", ask=resolver), A, 80) == 1
    resolver.slow = {"d.test": 1000.0}
    start = trio.current_time()
    assert await number(router("c.test:80", "d.test:80", ask=resolver), A, 80) == 1
    assert trio.current_time() - start < 0.1


async def test_a_reload_keeps_what_is_known_of_names(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    first = router("a.test:80", ask=resolver)
    assert await number(first, A, 80) == 1
    resolver.answer = [B]
    assert await number(Router(make_plan("a.test:80", "b.test:80"), ask=resolver, before=first), A, 80) == 1
    assert resolver.asked == 1


async def test_a_refusal_says_that_a_route_by_name_is_there() -> None:
    with pytest.raises(NoRoute) as caught:
        await router("a.test:80", "b.test:80", ask=Resolver(A)).find_route(Endpoint(B, 80))
    assert "no known address of a.test (1 addresses known) and b.test (1 addresses known)" in caught.value.what
    assert "write their network into 'match'" in str(caught.value.remedy)


class Nobody:
    """Sends no connection anywhere; what it asks for is in the clear."""

    own = None

    async def find(self, _sock: socket.socket) -> InTheClear:
        return InTheClear(Endpoint(A, 80))


@pytest.mark.parametrize("removed", [False, True])
async def test_no_key_that_goes_takes_a_connection_along_that_came_by_none(
    removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed on unencrypted stays when keys are rotated."""
    passed = trio.Event()

    async def pass_on(*_: object) -> None:
        passed.set()
        await trio.sleep_forever()

    monkeypatch.setattr(intercept, "pass_on", pass_on)
    plan = make_plan("10.0.0.1", passing=True)
    tunnel = Tunnel(plan, PumpEngine())
    monkeypatch.setattr(tunnel.upstreams, "router", Nobody())
    ours, theirs = socket.socketpair()
    with theirs, structlog.testing.capture_logs():
        async with trio.open_nursery() as nursery:
            tunnel._admit(ours, "client", nursery, 0.0, b"")
            with trio.fail_after(5):
                await passed.wait()
            before = tunnel.live.trust
            if removed:
                tunnel.live.trust = before.remains([], [], Trusted())
            else:
                tunnel.live.trust = Trust.of(PskAuth(generate_psk()))
            assert len(tunnel.connections) == 1
            assert uncovered(tunnel.live, before) == []
            nursery.cancel_scope.cancel()
    ours.close()
