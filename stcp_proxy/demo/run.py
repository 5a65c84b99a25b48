"""Runs the demo: its deadline, the signals, the exit status."""

from __future__ import annotations

import signal
import time
from typing import Final

import trio

from stcp_proxy.demo import story
from stcp_proxy.demo.screen import Screen
from stcp_proxy.demo.stage import DemoFailed, open_stage

DEADLINE: Final = 60.0
"""Seconds. The demo takes two or three, and less than 15 wherever a processor is to be had; where none is, late is better than a
false alarm. A step that hangs has its own, shorter patience."""


def run() -> int:
    """Play all scenes.

    Returns:
        Exit status: 0 when everything behaved as promised, 1 when something did not, 128 and the signal's number when
            one stopped it.
    """
    screen = Screen()
    status = 1
    try:
        status = trio.run(_main, screen)
    except* DemoFailed as group:
        screen.failed(_sentence(group))
    return status


async def _main(screen: Screen) -> int:
    """Play until the end, the deadline or a signal."""
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
