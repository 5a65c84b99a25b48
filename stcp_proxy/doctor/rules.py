"""Checks of the interception rules of this host: installed, missing, or older than the file; and of the egress filter.

The check reads no key: a user that may list rules need not be one that may read keys.
"""

from __future__ import annotations

from pathlib import Path

from stcp_proxy.config.intercept import load_capture
from stcp_proxy.config.plan import CapturePlan
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.errors import ConfigError, RulesRefused
from stcp_proxy.intercept import TABLE, installed, rules_for
from stcp_proxy.intercept.rules import about
from stcp_proxy.net.egress_filters import EgressState, egress_filters, state_of
from stcp_proxy.net.rules_sign import Installed, asked_for_egress_filter, installed_rules

_SUBJECT = "interception rules"


def look(config: Path) -> list[Finding]:
    """Check the rules for the intercepting tunnel of a file. No finding where no tunnel intercepts.

    Args:
        config: the file.
    """
    try:
        capture = load_capture(config)
    except ConfigError:
        return []  # there is nothing to install, or the finding for the configuration says what is wrong
    remedy = f"stcp-proxy intercept {config} --apply, with the --uid of the proxy's user"
    level, what, advice = _rules(capture)
    found = [Finding(level, _SUBJECT, what, advice if advice or level is Level.OK else remedy)]
    if level is not Level.FAIL:
        found.append(_egress(remedy))
    return found


def _rules(capture: CapturePlan) -> tuple[Level, str, str]:
    """Level, words and remedy for the rules; without a remedy, `--apply` is the remedy."""
    wanted = rules_for(capture, []).comment
    try:
        found = installed(TABLE)
    except RulesRefused as exc:
        return _rules_seen(capture, exc)
    if found == wanted:
        return Level.OK, f"installed as the file has them: table inet {TABLE}, {about(found)}", ""
    if found is None:
        return Level.FAIL, f"missing: there is no table inet {TABLE}, so nothing is sent to the tunnel", ""
    return Level.FAIL, f"outdated: table inet {TABLE} is {about(found)}, and the file asks for {about(wanted)}", ""


def _rules_seen(capture: CapturePlan, refusal: RulesRefused) -> tuple[Level, str, str]:
    """The same for a user that may not list rules: by their answers to connections, as the proxy knows them."""
    seen = installed_rules(capture.digest)
    if seen is Installed.UNKNOWN:
        what = f"they cannot be looked at: {refusal.what}"
        return Level.WARN, what, refusal.remedy or "look with nft list ruleset"
    if seen is Installed.CURRENT:
        return Level.OK, "installed as the file has them", ""
    return Level.FAIL, f"{seen}: no rules are installed" if seen is Installed.MISSING else f"{seen}: the file asks for others", ""


def _egress(remedy: str) -> Finding:
    """Whether each interface has the egress filter, where the rules were installed with it."""
    subject = "egress filter"
    if not asked_for_egress_filter():
        return Finding(Level.OK, subject, "not wanted: the rules were installed with --no-egress-filter")
    state, names = state_of(egress_filters())
    if state is EgressState.UNKNOWN:
        what = "it cannot be looked at: the kernel does not list filters to this process"
        return Finding(Level.WARN, subject, what, "look with tc filter show, as root")
    if state is EgressState.ATTACHED:
        return Finding(Level.OK, subject, "attached to every interface to other hosts")
    if state is EgressState.MISSING:
        what = f"missing on {', '.join(names)}: connections leave unencrypted there when another program deletes the rules"
        return Finding(Level.FAIL, subject, what, remedy)
    what = f"the filter of another program comes first on {', '.join(names)}, and may let connections leave unencrypted"
    return Finding(Level.FAIL, subject, what, "tc filter show dev INTERFACE egress; move that filter behind it (a larger pref)")
