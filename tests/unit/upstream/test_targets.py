"""Turns through targets: who is tried, in which order, how often, and for how long. The network is a table; the clock jumps."""

from __future__ import annotations

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from stcp_proxy.config import Balance
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
)
from stcp_proxy.net.address import parse_destination
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.upstream import attempt as turn_module
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.endpoint import LONGEST_PAUSE
from stcp_proxy.upstream.targets import Targets

from .network import A, B, C, Network, dial, end, targets


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


async def test_the_only_endpoint(autojump_clock: MockClock, network: Network) -> None:
    """It has no choice to make, and its failures are noted as those of others."""
    known = targets(A)
    (endpoint,) = known.endpoints
    assert known.only is endpoint
    assert targets(A, B).only is None
    assert targets("name.example:1").only is None
    network.down = {A}
    for _ in range(2):
        with pytest.raises(TargetRefused):
            await dial(known)
    assert (network.take(), endpoint.failures, endpoint.live) == ([A, A], 1, 0)
    network.down = set()
    await dial(known)
    assert (network.take(), endpoint.failures) == ([A], 0)
    again = targets(A)
    again.adopt(known)
    assert again.only is endpoint
