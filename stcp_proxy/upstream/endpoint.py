"""The health of one endpoint: one resolved address of a target.

An endpoint that fails is unhealthy for a pause, which doubles with every further failure. An unhealthy endpoint is tried last,
never skipped. After the pause a health check finds out whether the endpoint works again. Where a health check cannot tell, one
connection tries it in its usual place, and other connections go elsewhere meanwhile.

Invariants:
- the longest pause and one health check take less than five seconds together
"""

from __future__ import annotations

import random
from typing import Final

from stcp_proxy.errors import StcpError
from stcp_proxy.net.dial import SocketAddress

FIRST_PAUSE: Final = 0.25
"""Seconds that an endpoint is unhealthy after its first failure."""
LONGEST_PAUSE: Final = 3.0
_JITTER: Final = 0.25
"""Random part of a pause, so that many proxies do not come back at once."""


class Endpoint:
    """One resolved address that connections may go to.

    Args:
        address: the address to dial.

    Attributes:
        live: number of connections that are being made to it or are open.
        failures: number of failures in a row. Failures of attempts that began within one pause count once.
        until: end of the pause, on Trio's clock.
        left_to_check: whether a health check, and no connection, tries it after the pause.
        failing_since: time of the first of these failures; minus infinity before any failure.
        failed_at: time of the last failure; minus infinity before the first.
        reached_at: time of the last success; minus infinity before the first.
        why: the last failure.
        due: credit of round-robin.
        turn: number of its last turn, counted over all endpoints of a tunnel.
        name: text of the address, made once: each connection needs it.
    """

    __slots__ = (
        "_due_at",
        "address",
        "due",
        "failed_at",
        "failing_since",
        "failures",
        "left_to_check",
        "live",
        "name",
        "reached_at",
        "turn",
        "until",
        "why",
    )

    def __init__(self, address: SocketAddress) -> None:
        self.address: Final = address
        self.name: Final = str(address)
        self.live = self.failures = self.turn = 0
        self.due = self._due_at = self.until = 0.0
        self.left_to_check = False
        self.failed_at = self.failing_since = self.reached_at = float("-inf")
        self.why: StcpError | None = None

    def __str__(self) -> str:
        return self.name

    def is_unhealthy(self, now: float) -> bool:
        """Whether healthy endpoints are tried before this one."""
        return self.failures > 0 and (self.left_to_check or now < self.until)

    def fail(self, why: StcpError, *, now: float, since: float, left_to_check: bool = False) -> bool:
        """Note a failure.

        Args:
            why: the failure.
            now: on Trio's clock.
            since: start of the attempt. An endpoint that was reached later is not blamed.
            left_to_check: whether a health check will find out when it works again.

        Returns:
            Whether it was healthy until now.
        """
        if since < self.reached_at:
            return False
        self.why, self.failed_at, self.left_to_check = why, now, left_to_check
        if self.failures and since < self._due_at:
            return False  # one of many attempts that failed together, or a last resort
        if not self.failures:
            self.failing_since = now
        self.failures += 1
        self._due_at = self.until = now + self._pause()
        return self.failures == 1

    def take_trial(self, now: float) -> None:
        """Note that a connection tries it. After a failure, other connections go elsewhere until that connection has ended."""
        if self.failures and not self.is_unhealthy(now):
            self.until = now + self._pause()

    def reach(self, now: float) -> bool:
        """Note that it was reached. Returns whether it was failing until now."""
        was_failing, self.failures, self.left_to_check, self.reached_at = self.failures > 0, 0, False, now
        return was_failing

    def _pause(self) -> float:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 16))
        return pause * (1 - _JITTER * random.random())  # noqa: S311  (no secret)
