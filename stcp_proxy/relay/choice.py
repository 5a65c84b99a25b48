"""Which engine carries a tunnel's connections."""

from __future__ import annotations

from stcp_proxy.errors import ConfigError
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.pump import PumpEngine


def choose(choice: str) -> Engine:
    """The engine for a configured choice, not started yet.

    Args:
        choice: ``auto`` takes the best that this machine has, ``python`` the user-space engine, ``kernel`` requires the module.

    Raises:
        ConfigError: what is required is not there.
    """
    if choice == "kernel":
        raise ConfigError("engine kernel: this release has no kernel engine", remedy="use engine auto or python")
    return PumpEngine()
