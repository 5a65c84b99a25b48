"""The file descriptors of this process, shared by the connections of all its tunnels.

A connection needs two descriptors, one for each leg, and is accepted with one. So the number of connections is limited:
new ones wait in the kernel's backlog, and none is accepted only to be reset for want of its second descriptor.
"""

from __future__ import annotations

import os
import resource
import weakref
from typing import Final, Protocol

EACH: Final = 2
"""Descriptors of one connection."""
_RESERVE: Final = 64
"""Descriptors for everything else that comes and goes: the admin address, name lookups, health checks, reloads. Where the limit
is small, an eighth of it."""


class Sharer(Protocol):
    """A tunnel that waits for a place."""

    def wake(self) -> None:
        """Look again whether there is a place."""

    @property
    def strangers(self) -> int:
        """The number of connections that could give up their places."""

    def give_up_stranger(self) -> float:
        """Take the place of a stranger. Returns 0 where one is free now, else seconds until then."""


class LegHolder(Protocol):
    """A tunnel that holds wire legs at rest."""

    def give_way(self) -> bool:
        """Close the leg that has been at rest for longest. Returns whether there was one."""


class Descriptors:
    """A limit for the connections of all tunnels together.

    Attributes:
        places: the number of connections that may be open at once.
        used: the number of connections that are open.
        sharers: the connections of each tunnel; woken when a place comes free.
        legs: the number of wire legs at rest, which need one descriptor each.
        keepers: what holds these legs.
    """

    def __init__(self) -> None:
        self.places: float = float("inf")
        self.used = 0
        self.sharers: Final[weakref.WeakSet[Sharer]] = weakref.WeakSet()
        self.legs = 0
        self.keepers: Final[weakref.WeakSet[LegHolder]] = weakref.WeakSet()
        self._others = 0

    def measure(self, listeners: int) -> None:
        """Count what the process holds beside its connections; call it once, before the first is accepted.

        Args:
            listeners: the number of listening sockets.
        """
        self._others = len(os.listdir("/proc/self/fd")) - listeners
        self.set_listeners(listeners)

    def set_listeners(self, listeners: int) -> None:
        """Set the limit anew for a number of listening sockets."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            self.places = float("inf")
            return
        reserve = min(_RESERVE, soft // 8)
        self.places = max(1, (soft - self._others - listeners - reserve) // EACH)
        self.wake()

    @property
    def full(self) -> bool:
        """Whether no place is left."""
        return self.used + self.legs / EACH >= self.places

    @property
    def most_legs(self) -> float:
        """The largest number of legs at rest: a quarter of the descriptors."""
        return self.places * EACH / 4

    def make_room(self) -> bool:
        """Close legs at rest until a place is free. Returns whether one is."""
        for keeper in list(self.keepers):
            while self.full and keeper.give_way():
                pass
        return not self.full

    def take(self) -> None:
        """Count a connection that was accepted."""
        self.used += 1

    def give_back(self) -> bool:
        """Count a connection that has ended. Returns whether `wake` is due, in Trio's thread: no place was left until now."""
        was_full = self.full
        self.used -= 1
        return was_full

    def wake(self) -> None:
        """Wake the tunnels that wait for a place."""
        for sharer in list(self.sharers):
            sharer.wake()

    def reclaim(self) -> float:
        """Take the place of a stranger of any tunnel. Returns 0 where one is free now, else seconds until then or infinity."""
        sharer = max(self.sharers, key=lambda each: each.strangers, default=None)
        return float("inf") if sharer is None else sharer.give_up_stranger()

    def needed(self, connections: int) -> int:
        """The limit of open files with which so many connections have a place."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return soft if connections <= self.places else soft + EACH * (connections - int(self.places))
