"""Which listening sockets stay and which change hands when one plan replaces another."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from stcp_proxy.config import Plan, TunnelPlan
from stcp_proxy.net.listen import close_listeners
from stcp_proxy.session.intercept import needs_transparent

Listeners = Mapping[str, list[socket.socket]]
"""Listening sockets by the name of the tunnel that is to have them."""


@dataclass(slots=True)
class Prepared:
    """A change of plan that can be made.

    Attributes:
        plan: the new plan.
        opened: new listening sockets, by tunnel.
        inherited: for each tunnel that keeps its listening sockets or gets those of another one, the name of the old tunnel.
    """

    plan: Plan
    opened: dict[str, list[socket.socket]] = field(default_factory=dict)
    inherited: dict[str, str] = field(default_factory=dict)

    def abandon(self) -> None:
        """Close what was opened for the change."""
        for listeners in self.opened.values():
            close_listeners(listeners)
        self.opened.clear()


def inherit(old: Plan, new: Plan, *, without: Collection[str] = ()) -> dict[str, str]:
    """For each tunnel of `new` that finds its listening sockets open, name the tunnel of `old` that has them.

    A tunnel keeps its own sockets where its address stays; otherwise it takes those of a tunnel that gives up the address.

    Args:
        old: the plan in force.
        new: the plan to come.
        without: tunnels of `old` whose sockets nobody can connect to any more.
    """
    before = {tunnel.name: tunnel for tunnel in old.tunnels if tunnel.name not in without}
    inherited = {tunnel.name: tunnel.name for tunnel in new.tunnels if _same_listeners(before.get(tunnel.name), tunnel)}
    free = {name: tunnel for name, tunnel in before.items() if name not in inherited}
    for tunnel in new.tunnels:
        if tunnel.name not in inherited:
            giver = next((name for name, other in free.items() if _same_listeners(other, tunnel)), None)
            if giver is not None:
                inherited[tunnel.name] = giver
                del free[giver]
    return inherited


def _same_listeners(old: TunnelPlan | None, new: TunnelPlan) -> bool:
    """Whether the listening sockets of one plan serve the other: everything that decides how a socket is made is the same."""
    return old is not None and old.bind == new.bind and needs_transparent(old) == needs_transparent(new)
