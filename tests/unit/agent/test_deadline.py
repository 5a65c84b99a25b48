"""The time of a handshake runs from the moment when the kernel hands it out: a wait for a place is part of it."""

from __future__ import annotations

import errno

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.config.agent_plan import AgentPlan

from .fake_kernel import FakeKernel
from .stage import both_sides, connection, stage

ONE_PLACE = AgentPlan(both_sides().identities, max_handshakes=1)


async def ends(kernel: FakeKernel, count: int) -> list[tuple[int, int, float]]:
    """The ends of handshakes: number, errno, and the second of each."""
    found: list[tuple[int, int, float]] = []
    while len(found) < count:
        await trio.sleep(0.5)
        for end, error in list(zip(kernel.done, kernel.errors(), strict=True))[len(found) :]:
            found.append((end[1][0], error, trio.current_time()))
    return found


async def test_a_handshake_that_waited_for_a_place_has_less_time_left(kernel: FakeKernel, autojump_clock: MockClock) -> None:
    """Both peers are silent. The second handshake gets the place of the first after 20 of its 30 seconds."""
    with connection() as (one, _), connection() as (two, _):
        async with stage(kernel, ONE_PLACE) as running:
            start = trio.current_time()
            running.offer(one, timeout=20_000)
            running.offer(two, timeout=30_000)
            found = await ends(kernel, 2)
    assert [(number, error) for number, error, _ in found] == [(1, errno.ETIMEDOUT), (2, errno.ETIMEDOUT)]
    assert found[0][2] - start < 21
    assert 29 < found[1][2] - start < 31


async def test_a_handshake_whose_time_ends_before_a_place_is_free(kernel: FakeKernel, autojump_clock: MockClock) -> None:
    """It ends, and the next in the kernel is asked for. It never had a place, so it sends nothing."""
    with (
        connection() as (one, _),
        connection() as (two, far),
        connection() as (three, _),
        structlog.testing.capture_logs() as lines,
    ):
        async with stage(kernel, ONE_PLACE) as running:
            start = trio.current_time()
            running.offer(one, timeout=50_000)
            running.offer(two, timeout=5_000)
            running.offer(three, timeout=70_000)
            found = await ends(kernel, 3)
        far.settimeout(0.05)
        with pytest.raises(TimeoutError):
            far.recv(1)
    assert [(number, error) for number, error, _ in found] == [(2, errno.ETIMEDOUT), (1, errno.ETIMEDOUT), (3, errno.ETIMEDOUT)]
    assert found[0][2] - start < 6
    (line,) = [line for line in lines if line.get("reason") == "over_limit"]
    assert (line["why"], line["errno"]) == ("no place was free for the handshake within 5 s", "ETIMEDOUT")
    assert "max_handshakes" in line["remedy"]


async def test_a_stop_does_not_wait_for_a_place(kernel: FakeKernel, autojump_clock: MockClock) -> None:
    with connection() as (one, _), connection() as (two, _):
        async with stage(kernel, ONE_PLACE) as running:
            running.offer(one, timeout=20_000)
            running.offer(two, timeout=20_000)
            await trio.sleep(1)
            running.agent.stop()
            found = await ends(kernel, 2)
    assert [(number, error) for number, error, _ in found] == [(2, errno.ECONNABORTED), (1, errno.ETIMEDOUT)]
