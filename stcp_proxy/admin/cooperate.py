"""Long work of the admin address in short steps, so that it does not block the event loop that carries the connections."""

from __future__ import annotations

import time
from typing import Final

import trio

STEP: Final = 0.003
"""Seconds of work before the event loop runs again."""


class Steps:
    """Lets the event loop run after each step of work."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._worked = 0.0

    @property
    def worked(self) -> float:
        """Seconds of work so far, without the time of other tasks."""
        return self._worked + time.perf_counter() - self._began

    async def pause(self) -> None:
        """Let the loop run if the step has lasted for `STEP`. Call it between small pieces of work."""
        lasted = time.perf_counter() - self._began
        if lasted >= STEP:
            self._worked += lasted
            await trio.lowlevel.checkpoint()
            self._began = time.perf_counter()
