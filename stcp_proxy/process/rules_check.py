"""Which rules of interception this host has, asked again and again: rules vanish, and a reload can make them outdated.

The egress filter can vanish too: a queueing discipline is deleted, an interface is added, another program's filter comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.net.egress_filters import EgressState, egress_filters, state_of
from stcp_proxy.net.rules_sign import Installed, asked_for_egress_filter, installed_rules

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
_EGRESS_WORDS: Final = {
    EgressState.MISSING: (
        "the egress filter is missing",
        "on {}: connections leave unencrypted there when another program deletes the rules",
        f"{REMEDY}, or run 'intercept --watch' as a service",
    ),
    EgressState.HIDDEN: (
        "the filter of another program comes before the egress filter",
        "on {}: it may let connections leave unencrypted when another program deletes the rules",
        "look at it with 'tc filter show dev INTERFACE egress', and move it behind the egress filter (a larger 'pref')",
    ),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at this host found.

    Attributes:
        rules: the rules, compared with those of the file.
        egress: the egress filter; NOT_WANTED also where the rules are missing.
        interfaces: the interfaces that the state of the egress filter is about.
    """

    rules: Installed
    egress: EgressState = EgressState.NOT_WANTED
    interfaces: tuple[str, ...] = ()


class RulesCheck:
    """Asks for the rules of the tunnel that intercepts.

    Args:
        plan: returns the plan in force.
        loud: whether to log; one worker of several does.

    Attributes:
        found: the latest answer; None before the first, and where no tunnel intercepts.
    """

    def __init__(self, plan: Callable[[], Plan], *, loud: bool = True) -> None:
        self.found: Seen | None = None
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
        if found is not None and self._loud:
            _log_change(before, found)


def _log_change(before: Seen | None, found: Seen) -> None:
    if before is None or found.rules is not before.rules:
        if found.rules in _WORDS:
            event, why = _WORDS[found.rules]
            _log.warning(event, why=why, remedy=REMEDY)
        elif before is not None and before.rules in _WORDS:
            _log.info("the rules of interception are installed", rules=found.rules.value)
    if before is None or (found.egress, found.interfaces) != (before.egress, before.interfaces):
        for event, why, remedy in _egress_words(found):
            _log.warning(event, why=why, remedy=remedy)
        if before is not None and before.egress in _EGRESS_WORDS and found.egress is EgressState.ATTACHED:
            _log.info("the egress filter is attached")


async def ask(capture: CapturePlan) -> Seen:
    """Look at this host's rules, compared with those for `capture`; in a thread, since a firewall that drops makes it wait."""
    return await trio.to_thread.run_sync(_look, capture.digest, abandon_on_cancel=True)


def _look(digest: str) -> Seen:
    rules = installed_rules(digest)
    if not asked_for_egress_filter():
        return Seen(rules)
    return Seen(rules, *state_of(egress_filters()))


def captured(plan: Plan) -> CapturePlan | None:
    """What a plan captures; None where no tunnel intercepts."""
    return next((tunnel.intercept.capture for tunnel in plan.tunnels if tunnel.intercept is not None), None)


def warning(found: Seen) -> list[str]:
    """Lines for the answer to `reload` and `reload --check`; none where rules and egress filter are right."""
    words = [(*_WORDS[found.rules], REMEDY)] if found.rules in _WORDS else []
    return [f"WARNING: {event}: {why}; {remedy}" for event, why, remedy in (*words, *_egress_words(found))]


def _egress_words(found: Seen) -> Iterator[tuple[str, str, str]]:
    """Event, reason and remedy for an egress filter that is missing or hidden."""
    if found.egress in _EGRESS_WORDS:
        event, why, remedy = _EGRESS_WORDS[found.egress]
        yield event, why.format(", ".join(found.interfaces)), remedy
