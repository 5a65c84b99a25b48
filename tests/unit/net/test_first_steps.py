"""Steps with a deadline, which run with and without a task."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from stcp_proxy.net.first_steps import Steps, Wanted, continued, in_task, soon_readable, until


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


class Outside(trio.abc.Instrument):
    """Calls a function outside of Trio's tasks, as the engine does."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.done = False

    def before_io_wait(self, timeout: float) -> None:
        if not self.done:
            self.done = True
            self.function()


async def without_task(steps: Steps[Any]) -> list[Any]:
    """Run steps outside of Trio's tasks. Returns what they waited for, and their result if they come to an end."""
    seen: list[Any] = []

    def run() -> None:
        try:
            seen.append(steps.send(None))
            while seen[-1] is not None and len(seen) < 2:
                seen.append(steps.send(True))
        except StopIteration as done:
            seen.append(done.value)

    outside = Outside(run)
    trio.lowlevel.add_instrument(outside)
    while not outside.done:
        await trio.lowlevel.checkpoint()
    trio.lowlevel.remove_instrument(outside)
    return seen


async def two_waits(sock: socket.socket) -> tuple[bool, bool]:
    return await soon_readable(sock), await soon_readable(sock)


async def test_steps_that_need_no_task(sock: socket.socket) -> None:
    wanted = Wanted((sock,), select.EPOLLIN)
    assert await without_task(until(trio.current_time() + 10, soon_readable(sock))) == [wanted, True]


async def test_steps_that_go_on_in_a_task(sock: socket.socket) -> None:
    """The first wait was in time, the second took too long: the later steps have a scope."""

    async def slow() -> tuple[bool, bool, float]:
        first, second = await soon_readable(sock), await soon_readable(sock)
        await trio.lowlevel.checkpoint()
        return first, second, trio.current_effective_deadline()

    deadline = trio.current_time() + 10
    steps = until(deadline, slow())
    assert await without_task(steps) == [Wanted((sock,), select.EPOLLIN)] * 2
    assert await continued(steps) == (True, False, deadline)


async def test_steps_that_ask_for_a_task() -> None:
    async def scoped() -> float:
        await in_task()
        return trio.current_effective_deadline()

    deadline = trio.current_time() + 10
    steps = until(deadline, scoped())
    assert await without_task(steps) == [None]
    assert await continued(steps) == deadline


async def test_no_wait_begins_after_the_deadline(sock: socket.socket) -> None:
    """However soon its socket would be ready."""

    async def stuck() -> None:
        await soon_readable(sock)
        await trio.sleep_forever()

    steps = until(trio.current_time() - 1, stuck())
    assert await without_task(steps) == [None]
    with pytest.raises(trio.TooSlowError):
        await continued(steps)


async def test_deadline_in_a_task(autojump_clock: trio.abc.Clock) -> None:
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await until(began + 1, trio.sleep_forever())  # noqa: ASYNC105
    assert trio.current_time() == began + 1


async def test_failure_of_the_steps() -> None:
    async def fail() -> None:
        await in_task()
        raise OSError("a failure")

    steps = until(trio.current_time() + 10, fail())
    assert await without_task(steps) == [None]
    with pytest.raises(OSError, match="a failure"):
        await continued(steps)


async def test_steps_are_closed_with_their_session(sock: socket.socket) -> None:
    """A stop closes a session that has no task: its steps clean up."""
    closed: list[bool] = []

    async def cleaning() -> None:
        try:
            await soon_readable(sock)
            await soon_readable(sock)
        finally:
            closed.append(True)

    steps = until(trio.current_time() + 10, cleaning())
    await without_task(steps)
    assert not closed
    steps.close()
    assert closed
