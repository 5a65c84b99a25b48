"""Checks of certificates, authorities and revocation lists for overdue renewal, and of access rules for audit mode."""

from __future__ import annotations

from stcp_proxy.config import Plan
from stcp_proxy.config.audited_rules import audited_rules
from stcp_proxy.config.certificate_plan import time_text
from stcp_proxy.config.lifetimes import lifetimes
from stcp_proxy.doctor.finding import Finding, Level


def look(plan: Plan, now: float) -> list[Finding]:
    """One finding for each certificate and list, and for each access rule in audit mode.

    An overdue renewal fails, so that a scheduled check tells somebody. So does an audit that is over.

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
    for rule in audited_rules(plan):
        what, why, remedy = rule.warning(now)
        level = Level.WARN if rule.audit.is_on(now) else Level.FAIL
        found.append(Finding(level, f"tunnel {rule.tunnel}", f"{what}: {why}", remedy))
    return found
