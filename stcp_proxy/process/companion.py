"""What is served beside the tunnels, in the same loop: the admin address."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from stcp_proxy.process.companion_change import Changing

if TYPE_CHECKING:
    from stcp_proxy.process.running import Running


class Companion(Changing, Protocol):
    """What is served beside the tunnels, in the same loop."""

    def forked(self, worker: int | None) -> None:
        """Behind a fork: keep only what this process needs.

        Args:
            worker: which one this is; None is the parent, which serves nothing.
        """

    @property
    def listeners(self) -> list[socket.socket]:
        """Its listening sockets in this process."""

    def hand_over(self, taken: Collection[socket.socket]) -> None:
        """Close its listening sockets; those in `taken` are another process's from now on. Clients that have connected go on."""

    async def serve(self, running: Running) -> None:
        """Serve until cancelled. What it raises is logged, and the tunnels go on."""
