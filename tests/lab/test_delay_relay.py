"""The path with delay: when bytes arrive, in which order, and how each direction ends. On a clock that jumps."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stcp_proxy.lab.delay_relay import carry

ROUND_TRIP = 0.02


def line() -> tuple[trio.StapledStream, trio.StapledStream]:
    return trio.testing.memory_stream_pair()


async def test_bytes_wait_for_the_handshake_of_tcp_and_for_the_way(autojump_clock: trio.testing.MockClock) -> None:
    """What was said at once arrives after one and a half round trips; what was said later takes half a one."""
    (client, near), (far, server) = line(), line()
    start = trio.current_time()
    arrived: list[tuple[float, bytes]] = []

    async def listen() -> None:
        async for data in server:
            arrived.append((round(trio.current_time() - start, 6), bytes(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(lambda: carry(near, far, begin=start + ROUND_TRIP, delay=ROUND_TRIP / 2))
        await client.send_all(b"first")
        await trio.sleep(1)
        await client.send_all(b"second")
        await client.send_eof()
    assert arrived == [(0.03, b"first"), (1.01, b"second")]


async def test_a_question_and_its_answer_take_two_round_trips(autojump_clock: trio.testing.MockClock) -> None:
    (client, near), (far, server) = line(), line()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: carry(near, far, begin=start + ROUND_TRIP, delay=ROUND_TRIP / 2))
        nursery.start_soon(lambda: carry(far, near, begin=start + 1.5 * ROUND_TRIP, delay=ROUND_TRIP / 2))
        await client.send_all(b"question")
        assert await server.receive_some(100) == b"question"
        await server.send_all(b"answer")
        assert await client.receive_some(100) == b"answer"
        assert trio.current_time() - start == pytest.approx(2 * ROUND_TRIP)
        await client.send_eof()
        await server.send_eof()


async def test_a_broken_side_ends_the_relay(autojump_clock: trio.testing.MockClock) -> None:
    (client, near), (far, server) = line(), line()
    await server.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: carry(near, far, begin=0, delay=0.01))
        await client.send_all(b"lost")
        await client.send_eof()
