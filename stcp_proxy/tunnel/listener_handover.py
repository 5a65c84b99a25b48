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
ListeningKey = tuple[str, bool]
"""An address as text, and whether the sockets are transparent."""


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
    before = {tunnel.name: listening_key(tunnel) for tunnel in old.tunnels if tunnel.name not in without}
    return match_listeners(before, {tunnel.name: listening_key(tunnel) for tunnel in new.tunnels})


def match_listeners(old: Mapping[str, ListeningKey], new: Mapping[str, ListeningKey]) -> dict[str, str]:
    """`inherit`, for tunnels of which only the names and the listening sockets are known."""
    inherited = {name: name for name, key in new.items() if old.get(name) == key}
    free = {name: key for name, key in old.items() if name not in inherited}
    for name, key in new.items():
        if name not in inherited:
            giver = next((other for other, theirs in free.items() if theirs == key), None)
            if giver is not None:
                inherited[name] = giver
                del free[giver]
    return inherited


def listening_key(tunnel: TunnelPlan) -> ListeningKey:
    """Everything that decides how listening sockets are made: tunnels with an equal key can use each other's."""
    return str(tunnel.bind), needs_transparent(tunnel)
