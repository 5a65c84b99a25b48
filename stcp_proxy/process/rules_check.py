"""Which rules of interception this host has, asked again and again: rules vanish, and a reload can make them outdated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.net.rules_sign import Installed, installed_rules

_log = structlog.get_logger("stcp_proxy.intercept")

PERIOD: Final = 1.0
"""Seconds between two questions."""
REMEDY: Final = "run 'stcp-proxy intercept CONFIG --apply' as root, with the --uid of the proxy's user"
_WORDS: Final = {
    Installed.MISSING: (
        "the rules of interception are missing",
        "connections to captured destinations leave unencrypted, or the egress filter drops them",
    ),
    Installed.OUTDATED: (
        "the rules of interception are not those of this file",
        "destinations that only the file captures leave unencrypted",
    ),
}


class RulesCheck:
    """Asks for the rules of the tunnel that intercepts.

    Args:
        plan: returns the plan in force.
        loud: whether to log; one worker of several does.

    Attributes:
        found: the latest answer; None before the first, and where no tunnel intercepts.
    """

    def __init__(self, plan: Callable[[], Plan], *, loud: bool = True) -> None:
        self.found: Installed | None = None
        self._plan = plan
        self._loud = loud

    async def serve(self) -> None:
        """Ask until cancelled."""
        while True:
            await self.look()
            await trio.sleep(PERIOD)

    async def look(self) -> None:
        """Ask once, and log what has changed."""
        capture = captured(self._plan())
        found = None if capture is None else await ask(capture)
        before, self.found = self.found, found
        if found is None or found is before or not self._loud:
            return
        if found in _WORDS:
            event, why = _WORDS[found]
            _log.warning(event, why=why, remedy=REMEDY)
        elif before in _WORDS:
            _log.info("the rules of interception are installed", rules=found.value)


async def ask(capture: CapturePlan) -> Installed:
    """Which rules this host has, compared with those for `capture`; in a thread, since a firewall that drops makes it wait."""
    return await trio.to_thread.run_sync(installed_rules, capture.digest, abandon_on_cancel=True)


def captured(plan: Plan) -> CapturePlan | None:
    """What a plan captures; None where no tunnel intercepts."""
    return next((tunnel.intercept.capture for tunnel in plan.tunnels if tunnel.intercept is not None), None)


def warning(found: Installed) -> list[str]:
    """Lines for whoever has reloaded or is about to; none where the rules are right."""
    if found not in _WORDS:
        return []
    event, why = _WORDS[found]
    return [f"WARNING: {event}: {why}; {REMEDY}"]
