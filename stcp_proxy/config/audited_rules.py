"""The access rules of a plan in audit mode, and the warning that lasts as long as the setting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from stcp_proxy.config.audit import Audit
from stcp_proxy.config.plan import Plan
from stcp_proxy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AuditedRule:
    """An access rule in audit mode, as `check`, `doctor`, the log and the status warn of it.

    Attributes:
        tunnel: the name of the tunnel.
        audit: its audit mode.
    """

    tunnel: str
    audit: Audit

    def warning(self, now: float) -> tuple[str, str, str]:
        """The state of the rule, its meaning, and what to do.

        Args:
            now: the time, in unix seconds.
        """
        if self.audit.is_on(now):
            what = "access rule only audits"
            why = f"until {self.audit.date} it admits any key, and any certificate of an authority, beside those in 'allow'"
            return what, why, "add the peers that the log shows as admitted by audit to 'allow', then remove 'allow_mode'"
        why = f"it refuses since {self.audit.date}; connections that the audit admitted go on until a reload"
        return "audit of the access rule is over", why, "remove 'allow_mode' and reload"


def audited_rules(plan: Plan) -> list[AuditedRule]:
    """The access rules of a plan that have an audit mode, over or not."""
    return list(_audited_rules(plan))


def _audited_rules(plan: Plan) -> Iterator[AuditedRule]:
    for tunnel in plan.tunnels:
        audit = tunnel.audit
        if audit is not None:
            yield AuditedRule(tunnel.name, audit)


def refuse_ended(plan: Plan) -> None:
    """Refuse a plan with an audit that is over. Only `check` does this: a process must start and reload after the date, too.

    Raises:
        ConfigError: names the tunnels.
    """
    over = [rule for rule in audited_rules(plan) if not rule.audit.is_on(time.time())]
    if over:
        found = ", ".join(f"tunnel {rule.tunnel} ({rule.audit.date})" for rule in over)
        raise ConfigError(f"the audit of an access rule is over: {found}", remedy="remove 'allow_mode'")
