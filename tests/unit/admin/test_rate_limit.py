"""How much of the loop the admin address may have."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from stcp_proxy.admin.rate_limit import RateLimit


async def asked(rate_limit: RateLimit, seconds: float, *, trusted: bool, work: float = 0.0) -> int:
    """How many requests are answered in a span by whoever asks without a pause."""
    count = 0
    with trio.move_on_after(seconds):
        while True:
            await rate_limit.turn(trusted=trusted)
            rate_limit.charge(work)
            count += 1
    return count


async def test_a_few_requests_do_not_wait(autojump_clock: MockClock) -> None:
    rate_limit = RateLimit()
    began = trio.current_time()
    for _ in range(50):
        await rate_limit.turn(trusted=False)
    assert trio.current_time() == began


async def test_many_get_a_tenth_of_the_loop(autojump_clock: MockClock) -> None:
    assert 1000 <= await asked(RateLimit(), 10, trusted=True) <= 1110
    assert (
        95 <= await asked(RateLimit(), 10, trusted=True, work=0.009) <= 115
    )  # a tenth of ten seconds is a hundred of ten milliseconds


async def test_whoever_has_the_token_waits_for_no_stranger(autojump_clock: MockClock) -> None:
    rate_limit = RateLimit()
    async with trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(lambda: asked(rate_limit, 60, trusted=False))
        await trio.sleep(30)
        began = trio.current_time()
        for _ in range(40):
            await rate_limit.turn(trusted=True)
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()
