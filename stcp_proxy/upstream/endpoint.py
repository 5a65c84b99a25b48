"""One concrete address behind a tunnel, and how it has fared: passive health.

An endpoint that fails is set aside for a pause that doubles with every further failure. Being set aside is a matter of order and
nothing else: it is tried after all others, not never. When the pause is over it is tried again, by a probe where one can tell,
else by one connection in its proper place while the others wait for how that ends. The longest pause is short enough that what
comes back is in use again within five seconds.
"""

from __future__ import annotations

import random
from typing import Final

from stcp_proxy.errors import StcpError
from stcp_proxy.net.dial import SocketAddress

FIRST_PAUSE: Final = 0.25
"""Seconds an endpoint is set aside for after its first failure."""
LONGEST_PAUSE: Final = 3.0
_JITTER: Final = 0.25
"""Part of a pause that is left to chance, so that many proxies do not come back at once."""


class Endpoint:
    """One concrete address that connections may go to.

    Args:
        address: what to dial.

    Attributes:
        live: connections that are on their way to it or open.
        failures: how many in a row, those of attempts that began within one pause counted once.
        until: when it may be tried in its place again, on Trio's clock.
        probed: whether that is a probe's business and no connection's.
        failed_at: when it last failed; minus infinity where it never has.
        reached_at: when it was last reached; the same.
        why: its last failure.
        due: what it is owed by round-robin.
        turn: number of its last turn, counted over all endpoints of a tunnel.
    """

    __slots__ = ("_due_at", "address", "due", "failed_at", "failures", "live", "probed", "reached_at", "turn", "until", "why")

    def __init__(self, address: SocketAddress) -> None:
        self.address: Final = address
        self.live = self.failures = self.turn = 0
        self.due = self._due_at = self.until = 0.0
        self.probed = False
        self.failed_at = self.reached_at = float("-inf")
        self.why: StcpError | None = None

    def __str__(self) -> str:
        return str(self.address)

    def is_aside(self, now: float) -> bool:
        """Whether others are to be tried first."""
        return self.failures > 0 and (self.probed or now < self.until)

    def fail(self, why: StcpError, *, now: float, since: float, probed: bool = False) -> bool:
        """Note a failure.

        Args:
            why: it failed.
            now: on Trio's clock.
            since: when the attempt began. Who was reached after that is not blamed for it.
            probed: whether a probe is going to find out when it is back.

        Returns:
            Whether it had been in order until now.
        """
        if since < self.reached_at:
            return False
        self.why, self.failed_at, self.probed = why, now, probed
        if self.failures and since < self._due_at:
            return False  # one of many that failed together, or a last resort
        self.failures += 1
        self._due_at = self.until = now + self._pause()
        return self.failures == 1

    def take_trial(self, now: float) -> None:
        """A connection is going to try it. If it was set aside, the others wait for how that ends."""
        if self.failures and not self.is_aside(now):
            self.until = now + self._pause()

    def reach(self, now: float) -> bool:
        """Note that it was reached. Returns whether it had been failing until now."""
        was_failing, self.failures, self.probed, self.reached_at = self.failures > 0, 0, False, now
        return was_failing

    def _pause(self) -> float:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 16))
        return pause * (1 - _JITTER * random.random())  # noqa: S311  (no secret)
