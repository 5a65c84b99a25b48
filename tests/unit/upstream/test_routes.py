"""Which route takes a connection, and what becomes of what none takes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.config.plan import CapturePlan, EngineChoice, InterceptPlan, Mode, PskAuth, RoutePlan, TunnelPlan
from stcp_proxy.errors import NoRoute
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.keys import generate_psk
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import IPAddress, parse_pattern
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.session import intercept
from stcp_proxy.tunnel.revocation import uncovered
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.upstream.route_names import AGAIN, FRESH, KEPT, LONGEST, Whereabouts
from stcp_proxy.upstream.routes import InTheClear, Router, Way

AUTH = PskAuth(generate_psk())
CAPTURE = CapturePlan(Interception.REDIRECT, 15001, True, True, False, None, None, (), (), ())
A, B, C = (ipaddress.ip_address(f"10.0.0.{number}") for number in (1, 2, 3))


class Resolver:
    """Answers as told, and counts."""

    def __init__(self, *answer: IPAddress) -> None:
        self.answer: Collection[IPAddress] | Failure = answer
        self.asked = 0

    async def __call__(self, name: str) -> Collection[IPAddress] | Failure:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return self.answer


def make_plan(*matches: str, passing: bool = False) -> TunnelPlan:
    routes = tuple(RoutePlan(parse_pattern(text), (TcpAddress("10.9.9.9", at),), AUTH) for at, text in enumerate(matches, 1))
    intercept = InterceptPlan(routes, passing, CAPTURE)
    plan = TunnelPlan("out", Mode.CONNECT, TcpAddress("localhost", 15001), (), AUTH, (Suite.HYBRID_PSK,), EngineChoice.AUTO)
    object.__setattr__(plan, "intercept", intercept)
    return plan


def router(*matches: str, passing: bool = False, ask: Resolver | None = None) -> Router:
    return Router(make_plan(*matches, passing=passing), ask=ask or Resolver())


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


async def test_a_record_that_changes_is_found_at_once_and_the_old_one_fades(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    name = Whereabouts("x", resolver)
    assert await name.covers(A)
    assert await name.covers(A)
    assert resolver.asked == 1
    resolver.answer = [B]
    assert not await name.covers(B)  # asked a moment ago
    await trio.sleep(AGAIN)
    assert await name.covers(B)
    assert await name.covers(A)
    await trio.sleep(KEPT + FRESH)
    assert not await name.covers(A)
    assert await name.covers(B)


async def test_while_no_answer_comes_the_last_one_holds_for_a_time(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    name = Whereabouts("x", resolver)
    assert await name.covers(A)
    resolver.answer = Failure("x", 0, "silence")
    await trio.sleep(LONGEST - 1)
    assert await name.covers(A)
    assert name.trouble == "silence"
    await trio.sleep(2)
    assert not await name.covers(A)


async def test_many_who_ask_are_one_look_up(autojump_clock: trio.testing.MockClock) -> None:
    resolver = Resolver(A)
    name = Whereabouts("x", resolver)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(name.covers, A)
    assert resolver.asked == 1


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
            tunnel._admit(ours, "client", nursery)
            with trio.fail_after(5):
                await passed.wait()
            before = tunnel.live.trust
            if removed:
                tunnel.live.trust = before.remains([], [])
            else:
                tunnel.live.trust = Trust.of(PskAuth(generate_psk()))
            assert len(tunnel.connections) == 1
            assert uncovered(tunnel.live, before) == []
            nursery.cancel_scope.cancel()
    ours.close()
