"""What keeps this machine, a configuration, or the peers it names from working: looked at without changing anything.

- ``finding``   one thing that was looked at, and what to do about it
- ``machine``   this machine: kernel module, limits, clock
- ``ports``     where the tunnels of a plan would listen, and the admin address
- ``rules``     where a tunnel intercepts: the rules of this host
- ``peers``     whom they would talk to: names, and a real handshake with every peer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stcp_proxy.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Finding", "Level", "examine"]


def examine(config: Path | None) -> list[Finding]:
    """Everything that can be found out.

    Args:
        config: a YAML file; None looks at this machine alone.
    """
    import trio

    from stcp_proxy.config import load_plan
    from stcp_proxy.doctor import machine, peers, ports, rules
    from stcp_proxy.errors import ConfigError

    if config is None:
        return machine.look()
    try:
        plan = load_plan(config)
    except ConfigError as exc:
        found = Finding(Level.FAIL, "configuration", exc.what, exc.remedy or "correct it")
        return [*machine.look(), found, *rules.look(config)]
    tunnels = "1 tunnel" if len(plan.tunnels) == 1 else f"{len(plan.tunnels)} tunnels"
    found = Finding(Level.OK, "configuration", f"{config}: {tunnels}, every key file private and readable")
    return [*machine.look(plan), found, *ports.look(plan), *rules.look(config), *trio.run(peers.look, plan)]
