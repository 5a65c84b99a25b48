"""Checks of certificates, authorities and revocation lists: whether their renewal is overdue."""

from __future__ import annotations

from stcp_proxy.config import Plan
from stcp_proxy.config.certificate_plan import time_text
from stcp_proxy.config.lifetimes import lifetimes
from stcp_proxy.doctor.finding import Finding, Level


def look(plan: Plan, now: float) -> list[Finding]:
    """One finding for each certificate and list. An overdue renewal fails, so that a scheduled check tells somebody.

    Args:
        plan: the plan.
        now: the time, in unix seconds.
    """
    found = []
    for each in lifetimes(plan):
        problem = each.problem(now)
        if problem is None:
            found.append(Finding(Level.OK, each.subject, f"valid until {time_text(each.facts.not_after)}"))
        else:
            found.append(Finding(Level.FAIL, each.subject, *problem))
    return found
