"""Warnings while the proxy runs: certificates whose renewal is overdue, and access rules in audit mode."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.config.audited_rules import AuditedRule, audited_rules
from stcp_proxy.config.lifetimes import Lifetime, lifetimes

_log = structlog.get_logger("stcp_proxy.process")

PERIOD: Final = 60.0
"""Seconds between two looks."""
REPEAT: Final = 86400.0
"""Seconds after which a warning is repeated."""


class LifetimesCheck:
    """Looks at the certificates and the access rules of the plan in force.

    Args:
        plan: gives the plan in force.
        wall_clock: the time, in unix seconds.
    """

    def __init__(self, plan: Callable[[], Plan], *, wall_clock: Callable[[], float] = time.time) -> None:
        self._plan = plan
        self._now = wall_clock
        self._told: dict[Lifetime | tuple[AuditedRule, bool], float] = {}

    async def serve(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await trio.sleep(PERIOD)

    def look(self) -> None:
        """Log each overdue renewal and each rule in audit mode, at most once a day, and the end of an audit."""
        now, plan = self._now(), self._plan()
        told: dict[Lifetime | tuple[AuditedRule, bool], float] = {}
        for rule in audited_rules(plan):
            state = rule, rule.audit.is_on(now)
            told[state] = last = self._told.get(state, float("-inf"))
            if now - last >= REPEAT:
                told[state] = now
                event, why, remedy = rule.warning(now)
                _log.warning(event, tunnel=rule.tunnel, why=why, remedy=remedy)
        for each in lifetimes(plan):
            problem = each.problem(now)
            if problem is None:
                continue
            told[each] = last = self._told.get(each, float("-inf"))
            if now - last >= REPEAT:
                told[each] = now
                what, remedy = problem
                event = f"{each.kind} should have been renewed"
                _log.warning(event, certificate=each.subject, why=what, remedy=remedy)
        self._told = told
