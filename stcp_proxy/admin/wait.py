"""Wait until a running proxy is ready or has ended, from a different process."""

from __future__ import annotations

import http.client
import time
from typing import Final

from stcp_proxy.admin.client import AdminError, AnswerTimeout, Unreachable, ask, ask_json
from stcp_proxy.config import AdminPlan
from stcp_proxy.redact import printable

_FIRST: Final = 0.05
_LONGEST: Final = 1.0
"""The longest pause between two requests, in seconds; pauses grow up to it."""
_ANSWER: Final = 5.0


def wait_until_ready(plan: AdminPlan, timeout: float) -> None:
    """Return when the proxy at an admin address is ready.

    Args:
        plan: the admin address.
        timeout: seconds; 0 asks once.

    Raises:
        AdminError: it is not ready in time, or no proxy answers there.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST
    while True:
        try:
            status, body = ask(plan, "/readyz", timeout=max(1.0, min(_ANSWER, timeout)))
        except Unreachable as exc:
            why, remedy = exc.what, exc.remedy  # the proxy may not have started yet
        else:
            if status == http.client.OK:
                return
            words = printable(body[:300].decode("utf-8", "replace").strip())
            if status != http.client.SERVICE_UNAVAILABLE:
                raise AdminError(f"what answers at {plan.address} does not say whether it is ready: {words or status}")
            why, remedy = f"the proxy at {plan.address} is {words}", "its log says why"
        left = deadline - time.monotonic()
        if left <= 0:
            raise AdminError(f"not ready within {timeout:g} s: {why}" if timeout else why, remedy=remedy)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST)


def started(plan: AdminPlan) -> float:
    """The start time of the proxy at an admin address, seconds since 1970. A successor at the same address has a different one.

    Raises:
        AdminError: nothing answers, or the answer is not a proxy's.
    """
    return float(ask_json(plan, "/status?connections=0")["process"]["started"])


def wait_until_ended(plan: AdminPlan, since: float, timeout: float) -> None:
    """Return when the proxy that started at `since` no longer answers at an admin address.

    Args:
        plan: the admin address.
        since: its start time.
        timeout: seconds.

    Raises:
        AdminError: it has not ended in time.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST
    while True:
        try:
            if started(plan) != since:
                return
        except AnswerTimeout:
            pass  # the process is alive, but busy
        except Unreachable:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            remedy = "give a longer --timeout, or set a shorter 'drain'"
            raise AdminError(f"the proxy at {plan.address} has not ended within {timeout:g} s", remedy=remedy)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST)
