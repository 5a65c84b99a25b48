"""Checks of the interception rules of this host: installed, missing, or older than the file.

The check reads no key: a user that may list rules need not be one that may read keys.
"""

from __future__ import annotations

from pathlib import Path

from stcp_proxy.config.intercept import load_capture
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.errors import ConfigError, RulesRefused
from stcp_proxy.intercept import TABLE, installed, rules_for
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
        return [Finding(Level.OK, _SUBJECT, f"installed as the file has them: table inet {TABLE}, {about(found)}")]
    if found is None:
        what = f"missing: there is no table inet {TABLE}, so nothing is sent to the tunnel"
    else:
        what = f"outdated: table inet {TABLE} is {about(found)}, and the file asks for {about(wanted)}"
    return [Finding(Level.FAIL, _SUBJECT, what, f"stcp-proxy intercept {config} --apply, with the --uid of the proxy's user")]
