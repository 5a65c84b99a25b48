"""Waits of the first steps of a session, which may run without a Trio task.

A session is a coroutine. `tunnel/quick_start` runs it in the engine's loop until it ends or needs Trio. It is the same coroutine
with and without a task, so both ways decide alike. Without a task, a session may

- wait for a moment until a socket is ready: `soon_readable`, `soon_writable`, also below `until`
- and nothing else: before a scope of Trio, a checkpoint or any other wait it calls `in_task`, and goes on in a Trio task.

In a session that has a task, these functions return at once.
"""

from __future__ import annotations

import select
import socket
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import trio
from trio.lowlevel import current_task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The event that a session without a task waits for.

    Attributes:
        socks: the sockets, one of which has to be ready.
        mask: the events of epoll.
    """

    socks: tuple[socket.socket, ...]
    mask: int


Steps = Coroutine[Wanted | None, bool, T]
"""A session without a task. It yields what it waits for, and None for a task. It is sent whether a socket is ready."""


def _has_task() -> bool:
    """Whether a Trio task runs this code."""
    try:
        current_task()
    except RuntimeError:
        return False
    return True


in_trio_task: Final[Callable[[], bool]] = getattr(trio.lowlevel, "in_trio_task", _has_task)
"""Tells whether a Trio task runs this code. Trio has this function from 0.28 on; it makes no exception, and so costs less."""


async def in_task() -> None:
    """Go on in a Trio task."""
    if not in_trio_task():
        await _ask(None)


async def soon_readable(*socks: socket.socket) -> bool:
    """Wait for a moment until one of the sockets has bytes, its end or an error.

    Returns:
        Whether it has. If not, the session has a task now.
    """
    return not in_trio_task() and await _ask(Wanted(socks, select.EPOLLIN))


async def soon_writable(sock: socket.socket) -> bool:
    """Wait for a moment until a socket takes bytes, or has connected, or has failed.

    Returns:
        As `soon_readable`.
    """
    return not in_trio_task() and await _ask(Wanted((sock,), select.EPOLLOUT))


async def until(deadline: float, steps: Coroutine[Any, Any, T]) -> T:
    """Run steps with a deadline: by a cancel scope in a task. Without a task, each wait is short, and begins before the deadline.

    Args:
        deadline: on Trio's clock.
        steps: may use the waits of this module.

    Raises:
        trio.TooSlowError: the deadline has passed.
    """
    try:
        if not in_trio_task():
            try:
                wanted = steps.send(None)
                while wanted is not None and trio.current_time() < deadline and await _ask(wanted):
                    wanted = steps.send(True)
            except StopIteration as done:
                result: T = done.value
                return result
            await in_task()
        with trio.fail_at(deadline):
            return await continued(steps)
    finally:
        steps.close()


@types.coroutine
def _ask(wanted: Wanted | None) -> Generator[Wanted | None, bool, bool]:
    return (yield wanted) is True


@types.coroutine
def continued(steps: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await a coroutine that has run in part."""
    result: T = yield from steps
    return result
