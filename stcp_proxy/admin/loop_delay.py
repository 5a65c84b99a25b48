"""The delay of the event loop: how much longer than planned a short sleep lasts.

It is measured from a request for metrics until a minute after the last one.
"""

from __future__ import annotations

from typing import Final

import trio

from stcp_proxy.counters import Durations

_EVERY: Final = 0.25
"""Seconds between two measurements."""
_AFTER: Final = 60.0
"""Seconds that the measurement goes on after a request."""


class LoopDelay:
    """Measures the delay while metrics are requested.

    Attributes:
        durations: the results so far.
    """

    def __init__(self) -> None:
        self.durations: Final = Durations()
        self._until = 0.0
        self._asked = trio.Event()

    def ask(self) -> Durations:
        """Return the results so far, and measure for a further minute."""
        self._until = trio.current_time() + _AFTER
        self._asked.set()
        return self.durations

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            while (due := trio.current_time() + _EVERY) < self._until + _EVERY:
                await trio.sleep_until(due)
                self.durations.observe(max(0.0, trio.current_time() - due))
