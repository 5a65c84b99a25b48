"""Turns through targets: who is tried, in which order, how often, and for how long. The network is a table; the clock jumps."""

from __future__ import annotations

import errno
import random
import socket
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stcp_proxy.config import Balance
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import (
    ClientGone,
    Code,
    HandshakeClosed,
    OverLimit,
    PeerRejected,
    StcpError,
    TargetError,
    TargetRefused,
    TargetTimedOut,
    TargetUnreachable,
)
from stcp_proxy.net import name_cache
from stcp_proxy.net.address import Destination, parse_destination
from stcp_proxy.net.dial import Dialled, Failure, SocketAddress
from stcp_proxy.net.dns_settings import DnsSettings
from stcp_proxy.net.name_cache import NameCache
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream import attempt as turn_module
from stcp_proxy.upstream.attempt import Attempt, peer_unreachable
from stcp_proxy.upstream.endpoint import LONGEST_PAUSE
from stcp_proxy.upstream.targets import REPAIR_NAME, Targets

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


class Network:
    """What dialling leads to: `down` refuses, `black` is silent, and the rest answers."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.black: set[str] = set()
        self.dials: list[str] = []
        self.owners: list[object] = []
        """Who keeps each of them in mind."""
        self.hosts: dict[str, list[str]] = {}
        self.asked = 0

    async def connect(
        self, place: SocketAddress, deadline: float, *, own: object = None, source: object = None
    ) -> socket.socket | Failure:
        self.dials.append(str(place))
        self.owners.append(own)
        await trio.lowlevel.checkpoint()
        if str(place) in self.black:
            await trio.sleep_until(deadline)
            return Failure(str(place), errno.ETIMEDOUT, "no answer in time")
        if str(place) in self.down:
            return Failure(str(place), errno.ECONNREFUSED, "connection refused")
        return socket.socket()

    def take(self) -> list[str]:
        """The dials since the last time."""
        dials, self.dials = self.dials, []
        return dials

    async def getaddrinfo(self, host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        found = self.hosts.get(host)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.fixture
async def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(turn_module, "connect", made.connect)
    monkeypatch.setattr(trio.socket, "getaddrinfo", made.getaddrinfo)
    return made


class NoOwner:
    ledger = Ledger()

    def settle(self, *_: object) -> None: ...

    def forget(self, *_: object) -> None: ...


def targets(*to: str, balance: Balance = Balance.FAILOVER) -> Targets:
    lines: list[Destination] = [parse_destination(text) for text in to]
    return Targets(lines, tunnel="tunnel", balance=balance, rng=random.Random(1))


async def dial(known: Targets, timeout: float = 10.0) -> Connection:
    """A connection that comes through with whoever answers first."""
    record = Connection("tunnel", "client", NoOwner())
    with Attempt(known, timeout) as attempt:
        dialled = await attempt.dial()
        dialled.sock.close()
        record.target = dialled.name
        record.endpoint = attempt.reached()
    return record


def end(record: Connection) -> None:
    with structlog.testing.capture_logs():
        record.failed(ClientGone("gone"))


async def test_the_next_and_then_not_the_first(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A, B)
    network.down = {A}
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await dial(known)
    assert network.take() == [A, B, B, B]
    assert [(line["event"], line.get("target", line.get("failed"))) for line in logs] == [
        ("endpoint marked unhealthy", A),
        ("connection failed over", A),
    ]


async def test_one_tries_again_after_the_pause(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A, B)
    network.down = {A}
    await dial(known)
    await trio.sleep(0.3)
    await dial(known)
    await dial(known)
    assert network.take() == [A, B, A, B, B]
    network.down = set()
    await trio.sleep(LONGEST_PAUSE)
    with structlog.testing.capture_logs() as logs:
        await dial(known)
    assert [line["event"] for line in logs] == ["endpoint became healthy"]
    await dial(known)
    assert network.take() == [A, A]


async def test_a_black_hole_holds_up_one_connection_at_a_time(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A, B)
    network.black = {A}
    await dial(known)
    await trio.sleep(1)
    network.take()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(dial, known)
    assert network.take().count(A) == 1


async def test_unhealthy_endpoints_are_tried_the_oldest_failure_first(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A, B, C)
    for name in (B, C, A):
        network.down = {A, B, C} - {name}
        (endpoint,) = (each for each in known.endpoints if str(each) == name)
        known.note_failure(endpoint, TargetRefused("refused"), since=trio.current_time())
        await trio.sleep(0.01)
    network.down = {A, B, C}
    network.take()
    with pytest.raises(TargetRefused) as caught:
        await dial(known)
    assert network.take() == [B, C, A]
    assert all(name in str(caught.value) for name in (A, B, C))


async def test_a_single_target_is_tried_every_time(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A)
    network.down = {A}
    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(TargetRefused):
                await dial(known)
        network.down = set()
        await dial(known)
    assert network.take() == [A] * 6
    assert logs == []


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.sets(st.integers(1, 6)),
    st.sampled_from(Balance),
    st.integers(1, 4),
)
def test_everybody_at_most_once_and_nobody_refused_untried(to: list[int], down: set[int], balance: Balance, times: int) -> None:
    network = Network()
    network.down = {f"10.0.0.{number}:1" for number in down}
    wanted = {f"10.0.0.{number}:1" for number in to}

    async def check() -> None:
        known = targets(*(f"10.0.0.{number}:1" for number in to), balance=balance)
        for _ in range(times):
            try:
                await dial(known)
            except TargetError:
                assert wanted <= network.down
                assert set(network.dials) == wanted
            dials = network.take()
            assert len(dials) == len(set(dials))

    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        patch.setattr(turn_module, "connect", network.connect)
        trio.run(check, clock=MockClock(autojump_threshold=0))


# -- what happens behind the dial ------------------------------------------------------------------------------------------


async def failing(known: Targets, *why: StcpError) -> list[str]:
    """A connection that fails after each dial, for one reason after the other; who was dialled."""
    found: list[str] = []
    with Attempt(known, 10) as attempt:
        for reason in why:
            dialled: Dialled = await attempt.dial()
            dialled.sock.close()
            found.append(dialled.name)
            attempt.failed(reason)
    return found


@pytest.mark.parametrize(
    ("why", "counts"),
    [
        (HandshakeClosed("closed"), True),
        (TargetTimedOut("no answer to OPEN"), True),
        (PeerRejected(Code.TARGET_REFUSED, ""), True),
        (PeerRejected(Code.SHUTTING_DOWN, ""), True),
        (PeerRejected(Code.DENIED, ""), False),
        (PeerRejected(Code.UNKNOWN_SERVICE, ""), False),
        (ClientGone("gone"), False),
        (OverLimit("no descriptor"), False),
    ],
)
async def test_whose_failure_it_is(autojump_clock: MockClock, network: Network, why: StcpError, counts: bool) -> None:
    known = targets(A, B)
    await failing(known, why)
    await dial(known)
    assert network.take() == [A, B if counts else A]


async def test_the_last_failure_is_what_is_told(autojump_clock: MockClock, network: Network) -> None:
    why = HandshakeClosed("closed")
    with Attempt(targets(A), 10) as attempt:
        (await attempt.dial()).sock.close()
        attempt.failed(why)
        assert not attempt.more
        with pytest.raises(HandshakeClosed) as caught:
            await attempt.dial()
    assert caught.value is why


async def test_time_between_dials_does_not_count(autojump_clock: MockClock, network: Network) -> None:
    network.black = {B}
    with Attempt(targets(A, B), 10) as attempt:
        (await attempt.dial()).sock.close()
        await trio.sleep(60)
        attempt.failed(HandshakeClosed("closed"))
        before = trio.current_time()
        with pytest.raises(TargetTimedOut):
            await attempt.dial()
    assert trio.current_time() - before == pytest.approx(10)


# -- live connections ------------------------------------------------------------------------------------------------------


async def test_what_is_dialled_again_is_kept_in_mind_too(autojump_clock: MockClock, network: Network) -> None:
    """Another key means another connection; rules that intercept must spare it like the first, and know it when they do not."""
    own = OwnConnections()
    known = Targets([parse_destination(A)], tunnel="tunnel", own=own)
    with Attempt(known, 10) as attempt:
        (await attempt.dial()).sock.close()
        (await attempt.again()).sock.close()
    assert network.owners == [own, own]


async def test_live_connections_are_counted_to_their_end(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A, B, balance=Balance.LEAST_CONNECTIONS)
    records = [await dial(known) for _ in range(6)]
    assert [each.live for each in known.endpoints] == [3, 3]
    for record in records:
        if record.target == A:
            end(record)
    assert [each.live for each in known.endpoints] == [0, 3]
    for _ in range(3):
        assert (await dial(known)).target == A
    await failing(known, HandshakeClosed("closed"))
    assert [each.live for each in known.endpoints] == [3, 3]


async def test_a_cancelled_turn_does_not_count(autojump_clock: MockClock, network: Network) -> None:
    known = targets(A)
    network.black = {A}
    with trio.move_on_after(1):
        await dial(known)
    assert known.endpoints[0].live == 0


# -- names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [Balance.ROUND_ROBIN, Balance.LEAST_CONNECTIONS])
async def test_each_address_of_a_name_is_a_target(autojump_clock: MockClock, network: Network, balance: Balance) -> None:
    network.hosts = {"pods.test": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}
    known = targets("pods.test:1", balance=balance)
    assert sorted([(await dial(known)).target for _ in range(6)]) == [A, A, B, B, C, C]
    assert network.asked == 1


async def test_a_failing_name_waits_behind_the_others(autojump_clock: MockClock, network: Network) -> None:
    known = targets("gone.test:1", A)
    with structlog.testing.capture_logs():
        assert (await dial(known)).target == A
    known = targets("gone.test:1")
    with pytest.raises(TargetUnreachable, match=r"cannot resolve gone\.test"):
        await dial(known)


@pytest.mark.parametrize("to", [["gone.test:1"], ["gone.test:1", "lost.test:1"]])
async def test_the_remedy_for_names_is_about_names(autojump_clock: MockClock, network: Network, to: list[str]) -> None:
    """A connect tunnel says it too: whether `stcp-proxy listen` runs there is not the question."""
    with pytest.raises(TargetUnreachable) as caught:
        await dial(targets(*to))
    assert caught.value.remedy == peer_unreachable(caught.value).remedy == REPAIR_NAME


async def test_the_remedy_for_a_name_and_an_address_is_about_the_address(autojump_clock: MockClock, network: Network) -> None:
    network.down = {A}
    with structlog.testing.capture_logs(), pytest.raises(TargetRefused) as caught:
        await dial(targets("gone.test:1", A))
    assert "`stcp-proxy listen` runs there" in str(peer_unreachable(caught.value))


async def test_the_name_is_asked_again_when_its_address_fails(autojump_clock: MockClock, network: Network) -> None:
    """By the connection that finds out: it comes through."""
    name_cache.configure(DnsSettings(ttl=3600))
    network.hosts = {"db.test": ["10.0.0.1"]}
    known = targets("db.test:1")
    await dial(known)
    await trio.sleep(10)
    network.hosts, network.down = {"db.test": ["10.0.0.2"]}, {A}
    with structlog.testing.capture_logs():
        assert (await dial(known)).target == B
    assert network.take() == [A, A, B]
    assert [str(each) for each in known.endpoints] == [B]
    assert network.asked == 2


async def test_a_name_that_leads_nowhere_new_is_asked_once(autojump_clock: MockClock, network: Network) -> None:
    network.hosts, network.down = {"db.test": ["10.0.0.1"]}, {A}
    known = targets("db.test:1")
    for _ in range(50):
        with pytest.raises(TargetRefused):
            await dial(known)
    assert network.asked == 1  # all within a quarter of a second
    assert network.take() == [A] * 50


async def test_pods_that_are_gone_are_forgotten(autojump_clock: MockClock, network: Network) -> None:
    known = targets("pods.test:1", balance=Balance.ROUND_ROBIN)
    last = None
    for number in range(50):
        network.hosts = {"pods.test": [f"10.1.0.{number}"]}
        last = await dial(known)
        if number == 10:
            kept = last
        else:
            end(last)
        await trio.sleep(10)
    assert len(known._endpoints) == 2  # the last one, and the one whose connection lives
    assert kept.endpoint is not None
    assert kept.endpoint.live == 1


# -- reload ----------------------------------------------------------------------------------------------------------------


async def test_a_successor_knows_what_was_known(autojump_clock: MockClock, network: Network) -> None:
    old = targets(A, B)
    network.down = {A}
    record = await dial(old)
    new = targets(C, A, B)
    new.adopt(old)
    aside = {str(each): each.is_unhealthy(trio.current_time()) for each in new.endpoints}
    assert aside == {C: False, A: True, B: False}
    assert [each.live for each in new.endpoints] == [0, 0, 1]
    end(record)
    assert [each.live for each in new.endpoints] == [0, 0, 0]


def test_names_are_not_resolved_by_making_targets() -> None:
    assert targets("db.test:1", "srv:_stcp._tcp.test").endpoints == []
    assert isinstance(NameCache(DnsSettings()), NameCache)
