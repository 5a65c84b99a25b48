"""How late the event loop is: the time by which a short sleep is overslept.

It is measured only while somebody asks for metrics, and for a minute after that: a proxy that nobody looks at sleeps undisturbed.
"""

from __future__ import annotations

from typing import Final

import trio

from stcp_proxy.counters import Durations

_EVERY: Final = 0.25
"""Seconds between two measurements."""
_AFTER: Final = 60.0
"""Seconds that are measured behind a question."""


class Lag:
    """Measures the loop's lag while it is asked for.

    Attributes:
        durations: what was measured so far.
    """

    def __init__(self) -> None:
        self.durations: Final = Durations()
        self._until = 0.0
        self._asked = trio.Event()

    def ask(self) -> Durations:
        """What was measured so far; measure on for a minute."""
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
