"""A clock for deadlines that stands still while the process does not run.

A process can be paused: SIGSTOP, a frozen container, a suspended machine; or one step of its loop lasts too long. Meanwhile bytes
arrive that nobody reads. A deadline that passes in that time says nothing about the other side. So the clock leaves it out:
every deadline of Trio (handshake, dial, answer, drain) moves by it, and the sockets are looked at first.

The relay has deadlines of its own, which ask the sockets before they end a connection (``relay/deadlines.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

SLACK: Final = 1.0
"""Seconds that a wait or a step may last too long: a busy machine does that, and the clock goes on."""


class RunningClock(trio.abc.Clock, trio.abc.Instrument):
    """The time that the loop has run. It is a clock for `trio.run` and an instrument of the same run, the first of them.

    Args:
        now: the time that passes whether the process runs or not, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left_out = 0.0
        self._since = 0.0
        self._allowed = 0.0
        """The wait or step under way: when it began on the clock `now`, and how many seconds it may take."""

    def start_clock(self) -> None:
        """The loop starts."""
        self._expect(0.0)

    def current_time(self) -> float:
        """Seconds that have passed without those that are left out."""
        return self._now() - self._left_out

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Seconds until a deadline."""
        return deadline - self.current_time()

    def before_io_wait(self, timeout: float) -> None:
        """A step of the loop has ended, and it waits for at most `timeout` seconds."""
        self._leave_out()
        self._expect(timeout)

    def after_io_wait(self, _timeout: float) -> None:
        """The wait has ended; deadlines are looked at right after this."""
        self._leave_out()
        self._expect(0.0)

    def _expect(self, seconds: float) -> None:
        self._since, self._allowed = self._now(), seconds + SLACK

    def _leave_out(self) -> None:
        """Leave out a wait or step that lasted too long, all of it: how much of it came before the pause is not known."""
        lasted = self._now() - self._since
        if lasted > self._allowed:
            self._left_out += lasted
