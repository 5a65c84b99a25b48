"""Run the demo: its deadline, signals, and exit status."""

from __future__ import annotations

import signal
import time
from typing import Final

import trio

from stcp_proxy.demo import story
from stcp_proxy.demo.screen import Screen
from stcp_proxy.demo.stage import DemoFailed, open_stage

DEADLINE: Final = 60.0
"""Seconds. The demo takes two or three, and on a loaded machine less than 15. Without a free processor a late end is better than
a false alarm. Each step has a shorter deadline of its own."""


def run() -> int:
    """Play all scenes.

    Returns:
        Exit status: 0 when all checks passed, 1 when a check failed, 128 plus the signal's number after a signal.
    """
    screen = Screen()
    status = 1
    try:
        status = trio.run(_main, screen)
    except* DemoFailed as group:
        screen.failed(_sentence(group))
    return status


async def _main(screen: Screen) -> int:
    """Play until the end of the last scene, the deadline or a signal."""
    stopped_by: list[int] = []

    async def watch_signals(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for number in signals:
                stopped_by.append(number)
                scope.cancel()

    started = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_signals, nursery.cancel_scope)
        with trio.move_on_after(DEADLINE):
            async with open_stage() as stage:
                await story.play(stage, screen)
            screen.finished(time.monotonic() - started)
            nursery.cancel_scope.cancel()
            return 0
        if not stopped_by:
            raise DemoFailed(f"it was not over within {DEADLINE:g} s: this machine may be very busy; try again")
    screen.stopped()
    return 128 + stopped_by[0]


def _sentence(group: BaseExceptionGroup[DemoFailed]) -> str:
    """The text of the failure in a group of nested groups."""
    failure: BaseException = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return str(failure)
