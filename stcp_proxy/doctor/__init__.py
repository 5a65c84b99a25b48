"""`stcp-proxy doctor`: checks of this machine, a configuration, and the peers in it. Nothing is changed.

- ``finding``   the result of one check, and what to do about it
- ``machine``   this machine: kernel module, limits, clock
- ``ports``     the addresses at which tunnels and the admin pages listen
- ``lifetimes`` certificates, authorities and revocation lists: whether their renewal is overdue
- ``rules``     the interception rules of this host, where a tunnel intercepts
- ``peers``     peers and targets: names, connections, and a real handshake with every peer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stcp_proxy.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Finding", "Level", "examine"]


def examine(config: Path | None) -> list[Finding]:
    """Run every check.

    Args:
        config: a YAML file; None checks this machine alone.
    """
    import time

    import trio

    from stcp_proxy.config import load_plan
    from stcp_proxy.config.example_keys import refuse_examples
    from stcp_proxy.doctor import lifetimes, machine, peers, ports, rules
    from stcp_proxy.errors import ConfigError

    if config is None:
        return machine.look()
    try:
        plan = load_plan(config)
        refuse_examples(plan)
    except ConfigError as exc:
        found = Finding(Level.FAIL, "configuration", exc.what, exc.remedy or "correct it")
        return [*machine.look(), found, *rules.look(config)]
    tunnels = "1 tunnel" if len(plan.tunnels) == 1 else f"{len(plan.tunnels)} tunnels"
    found = Finding(Level.OK, "configuration", f"{config}: {tunnels}, every key file private and readable")
    return [
        *machine.look(plan),
        found,
        *lifetimes.look(plan, time.time()),
        *ports.look(plan),
        *rules.look(config),
        *trio.run(peers.look, plan),
    ]
