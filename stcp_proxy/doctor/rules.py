"""Checks of the interception rules of this host: installed, missing, or older than the file.

The check reads no key: a user that may list rules need not be one that may read keys.
"""

from __future__ import annotations

from pathlib import Path

from stcp_proxy.config.intercept import load_capture
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.errors import ConfigError, RulesRefused
from stcp_proxy.intercept import TABLE, installed, rules_for
from stcp_proxy.intercept.egress_filter import bare
from stcp_proxy.intercept.rules import about

_SUBJECT = "interception rules"


def look(config: Path) -> list[Finding]:
    """Check the rules for the intercepting tunnel of a file. No finding where no tunnel intercepts.

    Args:
        config: the file.
    """
    try:
        wanted = rules_for(load_capture(config), []).comment
    except ConfigError:
        return []  # there is nothing to install, or the finding for the configuration says what is wrong
    try:
        found = installed(TABLE)
    except RulesRefused as exc:
        what = f"they cannot be looked at: {exc.what}"
        return [Finding(Level.WARN, _SUBJECT, what, exc.remedy or "look with nft list ruleset")]
    if found == wanted:
        installed_rules = Finding(Level.OK, _SUBJECT, f"installed as the file has them: table inet {TABLE}, {about(found)}")
        return [installed_rules, _egress(config)]
    if found is None:
        what = f"missing: there is no table inet {TABLE}, so nothing is sent to the tunnel"
    else:
        what = f"outdated: table inet {TABLE} is {about(found)}, and the file asks for {about(wanted)}"
    return [Finding(Level.FAIL, _SUBJECT, what, f"stcp-proxy intercept {config} --apply, with the --uid of the proxy's user")]


def _egress(config: Path) -> Finding:
    """Whether each interface has the egress filter."""
    subject = "egress filter"
    try:
        names = bare(TABLE)
    except RulesRefused as exc:
        return Finding(Level.WARN, subject, f"it cannot be looked at: {exc.what}", exc.remedy or "look with tc filter show")
    if not names:
        return Finding(Level.OK, subject, "attached to every interface to other hosts")
    what = f"missing on {', '.join(names)}: connections leave unencrypted there when another program deletes the rules"
    return Finding(Level.WARN, subject, what, f"stcp-proxy intercept {config} --apply, with the --uid of the proxy's user")
