"""How a reload changes what is served beside the tunnels: the admin address."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from stcp_proxy.config import Plan


class Change(Protocol):
    """A prepared change of what is served beside the tunnels. One of `commit` and `close` is called."""

    @property
    def listeners(self) -> list[socket.socket] | None:
        """New listening sockets; None where the present ones stay, or another process opens them."""

    def commit(self) -> None:
        """Make the change, in Trio's thread; in the parent of workers, in the thread that leads reloads. It cannot fail."""

    def close(self) -> None:
        """Close what was opened."""


class Changing(Protocol):
    """What is served beside the tunnels, and changes with a reload."""

    def prepare(self, plan: Plan, given: Sequence[socket.socket] | None = None) -> Change | None:
        """Prepare a reload, in a thread: open listening sockets, and load what will serve them.

        Args:
            plan: the new plan.
            given: new listening sockets from the parent of workers; None for none.

        Returns:
            The change; None where the plan changes nothing.

        Raises:
            ConfigError: the address cannot be listened on.
        """
