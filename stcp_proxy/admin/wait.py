"""Wait for a proxy to be ready, or to have ended, from outside it."""

from __future__ import annotations

import http.client
import time
from typing import Final

from stcp_proxy.admin.client import AdminError, NoAnswer, NobodyThere, ask, ask_json
from stcp_proxy.config import AdminPlan
from stcp_proxy.redact import printable

_FIRST: Final = 0.05
_LONGEST: Final = 1.0
"""Seconds between two questions, which get rarer."""
_ANSWER: Final = 5.0


def wait_until_ready(plan: AdminPlan, timeout: float) -> None:
    """Return when the proxy at an admin address says that it is ready.

    Args:
        plan: where it is.
        timeout: seconds; 0 asks once.

    Raises:
        AdminError: it is not ready in time, or what answers there is no proxy.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST
    while True:
        try:
            status, body = ask(plan, "/readyz", timeout=max(1.0, min(_ANSWER, timeout)))
        except NobodyThere as exc:
            why, remedy = exc.what, exc.remedy  # it may not have been started yet
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
    """When the proxy at an admin address started: what tells it from its successor there.

    Raises:
        AdminError: nothing answers there, or what answers is no proxy.
    """
    return float(ask_json(plan, "/status?connections=0")["process"]["started"])


def wait_until_ended(plan: AdminPlan, since: float, timeout: float) -> None:
    """Return when the proxy that started at `since` no longer answers at an admin address.

    Args:
        plan: where it is.
        since: when it started.
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
        except NoAnswer:
            pass  # it is there, and busy
        except NobodyThere:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            remedy = "give a longer --timeout, or set a shorter 'drain'"
            raise AdminError(f"the proxy at {plan.address} has not ended within {timeout:g} s", remedy=remedy)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST)
