"""The share of the event loop that requests to the admin address may use: a tenth.

The loop also carries the relays. After work for a request, the relays have the loop for nine times as long. A credit lets a short
burst of requests pass without waiting. Requests without the token can use one half of the credit. The other half is reserved for
requests with the token, so they never wait for requests without it.
"""

from __future__ import annotations

from typing import Final

import trio

_FACTOR: Final = 10.0
_REQUEST: Final = 0.001
"""Seconds of work that each request costs: slightly more than parsing and answering take."""
_CREDIT: Final = {True: 1.0, False: 0.5}
"""Seconds of credit, with the token and without; one request uses ten milliseconds."""


class RateLimit:
    """Decides when a request may be answered."""

    def __init__(self) -> None:
        self._busy_until = float("-inf")
        self._turns = {trusted: trio.Lock() for trusted in _CREDIT}

    async def turn(self, *, trusted: bool) -> None:
        """Return when a request may be answered, in the order of arrival.

        Args:
            trusted: whether the request has the token, or needs none.
        """
        async with self._turns[trusted]:
            while True:
                due = self._busy_until - _CREDIT[trusted]
                if due <= trio.current_time():
                    break
                await trio.sleep_until(due)  # meanwhile, more may have been charged
            self.charge(_REQUEST)

    def charge(self, seconds: float) -> None:
        """Count time of the loop that a request used, in seconds."""
        self._busy_until = max(self._busy_until, trio.current_time()) + seconds * _FACTOR
