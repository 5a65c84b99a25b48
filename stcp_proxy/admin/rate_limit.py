"""How much of the event loop the admin address may have, whoever asks and however often.

The loop carries the relays, too, so what is done for a request is paid for: nine times as long as it took, the loop is theirs.
What little is asked as a rule is paid for in advance. Of that, strangers can use up one half; whoever has the token has the
other half left, and waits for no stranger.
"""

from __future__ import annotations

from typing import Final

import trio

_FACTOR: Final = 10.0
_REQUEST: Final = 0.001
"""Seconds of work that a request counts for by itself: somewhat more than it takes to parse and answer."""
_CREDIT: Final = {True: 1.0, False: 0.5}
"""Seconds in advance, for whoever is trusted and for others; ten milliseconds are one request."""


class Pace:
    """Who may be answered when."""

    def __init__(self) -> None:
        self._paid_at = float("-inf")
        self._turns = {trusted: trio.Lock() for trusted in _CREDIT}

    async def turn(self, *, trusted: bool) -> None:
        """Return when a request may be answered; first come, first served.

        Args:
            trusted: whether it has shown the token, or needs none.
        """
        async with self._turns[trusted]:
            while True:
                due = self._paid_at - _CREDIT[trusted]
                if due <= trio.current_time():
                    break
                await trio.sleep_until(due)  # meanwhile, more may have been charged
            self.charge(_REQUEST)

    def charge(self, seconds: float) -> None:
        """So much time of the loop was used."""
        self._paid_at = max(self._paid_at, trio.current_time()) + seconds * _FACTOR
