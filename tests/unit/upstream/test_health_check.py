"""Health checks: which endpoints are checked, when, and with which result. The network is a set of addresses that are down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.config import HealthPlan
from stcp_proxy.errors import OverLimit, PeerRejected, TargetRefused
from stcp_proxy.net.address import parse_destination
from stcp_proxy.net.dial import SocketAddress
from stcp_proxy.upstream.endpoint import Endpoint
from stcp_proxy.upstream.health_check import HealthChecker
from stcp_proxy.upstream.targets import Targets

A, B = "10.0.0.1:1", "10.0.0.2:1"


class Far:
    """The endpoints of health checks."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.checks: list[tuple[float, str]] = []

    async def check(self, place: SocketAddress, timeout: float) -> None:
        self.checks.append((trio.current_time(), str(place)))
        await trio.lowlevel.checkpoint()
        if str(place) in self.down:
            raise TargetRefused("refused", remedy="start it")

    def count(self, name: str) -> int:
        return sum(place == name for _, place in self.checks)


@asynccontextmanager
async def checking(far: Far, *to: str, interval: float | None = None) -> AsyncIterator[Targets]:
    targets = Targets([parse_destination(text) for text in to], tunnel="tunnel")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HealthChecker(targets, far.check, HealthPlan(interval)).run)
        await trio.testing.wait_all_tasks_blocked()
        with structlog.testing.capture_logs():
            yield targets
        nursery.cancel_scope.cancel()


def fails(targets: Targets, far: Far, name: str) -> Endpoint:
    """A connection has found that it is down."""
    far.down.add(name)
    (endpoint,) = (each for each in targets.endpoints if str(each) == name)
    targets.note_failure(endpoint, TargetRefused("refused", remedy="start it"), since=trio.current_time())
    return endpoint


async def test_healthy_endpoints_are_not_checked_without_an_interval(autojump_clock: MockClock) -> None:
    far = Far()
    async with checking(far, A, B):
        await trio.sleep(3600)
    assert far.checks == []


async def test_an_unhealthy_endpoint_is_checked_and_healthy_again_within_five_seconds(autojump_clock: MockClock) -> None:
    for down_for in (0.0, 0.3, 1.0, 10.0, 100.0, 100.7, 101.9):
        far = Far()
        async with checking(far, A, B) as targets:
            endpoint = fails(targets, far, A)
            await trio.sleep(down_for)
            assert endpoint.is_unhealthy(trio.current_time())  # however long: no connection has to find out
            far.down.clear()
            back = trio.current_time()
            await trio.sleep(3.1)
            assert not endpoint.is_unhealthy(trio.current_time())
            assert endpoint.reached_at - back < 3.1
            assert far.count(B) == 0
            assert far.count(A) <= 8 + down_for / 2


async def test_a_single_endpoint_is_not_checked(autojump_clock: MockClock) -> None:
    """There is nothing to choose: each connection tries it anyway."""
    far = Far()
    async with checking(far, A) as targets:
        fails(targets, far, A)
        await trio.sleep(100)
    assert far.checks == []


async def test_a_failure_that_no_check_sees_is_left_to_a_connection(autojump_clock: MockClock) -> None:
    far = Far()
    async with checking(far, A, B) as targets:
        (endpoint, _) = targets.endpoints
        targets.note_failure(endpoint, PeerRejected(3, ""), since=trio.current_time())
        assert endpoint.is_unhealthy(trio.current_time())
        await trio.sleep(1)
        assert not endpoint.is_unhealthy(trio.current_time())
        assert endpoint.failures == 1
    assert far.checks == []


async def test_an_interval_checks_every_endpoint_and_finds_failures_first(autojump_clock: MockClock) -> None:
    far = Far()
    async with checking(far, A, B, interval=5) as targets:
        await trio.sleep(100)
        assert 20 <= far.count(A) <= 26
        assert 20 <= far.count(B) <= 26
        far.down = {A}
        await trio.sleep(5.1)
        assert [each.is_unhealthy(trio.current_time()) for each in targets.endpoints] == [True, False]
        far.down = set()
        await trio.sleep(3.1)
        assert [each.failures for each in targets.endpoints] == [0, 0]


async def test_an_endpoint_that_connections_reach_is_not_checked(autojump_clock: MockClock) -> None:
    far = Far()
    async with checking(far, A, B, interval=5) as targets:
        far.checks.clear()
        for _ in range(50):
            targets.note_reached(targets.endpoints[0])
            await trio.sleep(1)
    assert far.count(A) == 0
    assert far.count(B) > 5


@pytest.mark.parametrize("interval", [None, 5.0])
async def test_a_machine_without_ports_blames_nobody(autojump_clock: MockClock, interval: float | None) -> None:
    far = Far()

    async def no_ports(place: SocketAddress, timeout: float) -> None:
        far.checks.append((trio.current_time(), str(place)))
        raise OverLimit("no local port is left", remedy="widen the range")

    far.check = no_ports  # type: ignore[method-assign]
    async with checking(far, A, B, interval=interval) as targets:
        fails(targets, far, A)
        await trio.sleep(30)
        assert [each.failures for each in targets.endpoints] == [1, 0]
        assert far.count(A) <= 32


async def test_without_checks_a_connection_tries_an_unhealthy_endpoint(autojump_clock: MockClock) -> None:
    """As while the tunnel drains."""
    far = Far()
    async with checking(far, A, B) as targets:
        endpoint = fails(targets, far, A)
    await trio.sleep(1)
    assert endpoint.failures
    assert not endpoint.is_unhealthy(trio.current_time())


@pytest.mark.parametrize("interval", [None, 5.0])
async def test_a_cancelled_check_ends(autojump_clock: MockClock, interval: float | None) -> None:
    far = Far()
    async with checking(far, A, interval=interval):
        pass
    assert len(far.checks) == (interval is not None)
