"""The routes that tproxy needs: packets with a mark go to loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stcp_proxy.intercept.programs import refused, run
from stcp_proxy.intercept.rules import Rules, routing

_IPV6_OFF: Final = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")


def add_routing(rules: Rules) -> list[tuple[str, ...]]:
    """Add the routes that are missing.

    Returns:
        The commands that remove the added routes.

    Raises:
        RulesRefused: nothing was added.
    """
    if rules.divert is None:
        return []
    added: list[tuple[str, ...]] = []
    families = (rules.divert, "add", rules.ip4, rules.ip6 and not ipv6_is_off())
    undo = routing(rules.divert, "delete", *families[2:])
    for command, back in zip(routing(*families), undo, strict=True):
        done = run(command)
        if done.returncode == 0:
            added.append(back)
        elif "File exists" not in done.stderr:
            delete(added)
            raise refused("a route for marked packets", command, done.stderr)
    return added


def delete(commands: list[tuple[str, ...]]) -> None:
    """Run commands that delete routes. A missing route is not an error."""
    for command in commands:
        run(command)


def ipv6_is_off() -> bool:
    """Whether this host has no IPv6, or has disabled it for loopback: then no route can be added, and none is needed."""
    try:
        return _IPV6_OFF.read_text().strip() != "0"
    except OSError:
        return True
