"""A leg during the opening: when it looks, and when it waits."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from stcp_proxy.net.leg_stream import LegStream


class Counting(socket.socket):
    """Counts how often it is looked into."""

    looks = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.looks += 1
        return super().recv(size, flags)


@pytest.fixture
def legs() -> Iterator[tuple[LegStream, Counting, socket.socket]]:
    near, far = socket.socketpair()
    near = Counting(fileno=near.detach())
    near.setblocking(False)
    with near, far:
        yield LegStream(near), near, far


async def test_what_is_there_is_taken_at_once(legs: tuple[LegStream, Counting, socket.socket]) -> None:
    stream, near, far = legs
    far.send(b"first")
    assert await stream.receive_some() == b"first"
    assert near.looks == 1


async def test_an_answer_is_waited_for_before_anybody_looks(legs: tuple[LegStream, Counting, socket.socket]) -> None:
    stream, near, far = legs
    answers: list[bytes] = []

    async def ask() -> None:
        await stream.send_all(b"question")
        answers.append(await stream.receive_some())
        answers.append(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert (near.looks, far.recv(100)) == (0, b"question")
        far.send(b"answer")
        await trio.testing.wait_all_tasks_blocked()
        assert (near.looks, answers) == (2, [b"answer"])  # the second look was for what might have come with it
        far.shutdown(socket.SHUT_WR)
    assert answers == [b"answer", b""]


async def test_an_answer_that_does_not_come_is_a_broken_leg_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        near.setblocking(False)
        far, _ = listener.accept()
    stream = LegStream(near)
    await stream.send_all(b"question")
    LegStream(far).reset()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    stream.close()


async def test_a_send_that_was_cancelled_half_way_is_remembered(legs: tuple[LegStream, Counting, socket.socket]) -> None:
    stream, _, far = legs
    assert not stream.is_cut
    with trio.move_on_after(0):
        await stream.send_all(bytes(1 << 24))
    assert stream.is_cut
    far.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while far.recv(1 << 20):
            pass
    await stream.send_all(b"rest")
    assert not stream.is_cut


async def test_a_send_at_once_that_went_in_part_is_remembered(legs: tuple[LegStream, Counting, socket.socket]) -> None:
    stream, _, _ = legs
    assert 0 < stream.send_nowait(bytes(1 << 24)) < 1 << 24
    assert stream.is_cut
