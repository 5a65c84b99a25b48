"""The listening sockets of this process: offered to a new one, and given up when that serves."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from stcp_proxy.net.unix_socket import made_here
from stcp_proxy.process.companion import Companion
from stcp_proxy.session.handover import stopping
from stcp_proxy.tunnel.listener_handover import listening_key
from stcp_proxy.tunnel.tunnels import Tunnels

if TYPE_CHECKING:  # loaded only by a process that another one may replace
    from stcp_proxy.process.takeover_server import Offer


class OwnListeners:
    """The listening sockets of tunnels and admin address in this process.

    Args:
        tunnels: what it serves.
        beside: what is served beside them; a reload may bring it later.
        ready: tells whether this process is ready, and does not stop.

    Attributes:
        replaced: set when a new process serves, and this one has to drain.
    """

    def __init__(self, tunnels: Tunnels, beside: Companion | None, ready: Callable[[], bool]) -> None:
        self.replaced: Final = trio.Event()
        self._tunnels = tunnels
        self.beside = beside
        self._ready = ready
        self._offered: list[socket.socket] = []

    def offer(self) -> Offer:
        """All of them with their descriptions, without unix sockets whose file is gone.

        Raises:
            ShuttingDown: this process is not ready, or stops.
        """
        if not self._ready():
            raise stopping()
        from stcp_proxy.process.takeover_messages import Handed

        found: Offer = []
        for tunnel in self._tunnels.serving:
            bind, transparent = listening_key(tunnel.plan)
            if not tunnel.lost:
                found += [
                    (Handed("tunnel", tunnel.plan.name, bind, transparent, made_here(sock)), sock) for sock in tunnel.listeners
                ]
        admin = self._tunnels.plan.admin
        if self.beside is not None and admin is not None:
            bind = str(admin.address)
            found += [(Handed("admin", "", bind, made=made_here(sock)), sock) for sock in self.beside.listeners]
        self._offered = [sock for _, sock in found]
        return found

    async def give_up(self, taken: Sequence[int]) -> None:
        """Close all of them, and begin to drain.

        Args:
            taken: numbers of the last offer: sockets that the new process has.
        """
        with trio.CancelScope(shield=True):
            sockets = {self._offered[number] for number in taken}
            await self._tunnels.hand_over(sockets)
            if self.beside is not None:
                self.beside.hand_over(sockets)
            self.replaced.set()


class InThisProcess:
    """A source of sockets for `TakeoverServer`: this process alone. Make it in Trio's thread."""

    def __init__(self, own: OwnListeners) -> None:
        self._own = own
        self._token = trio.lowlevel.current_trio_token()

    def offer(self) -> Offer:
        """See `Source.offer`."""
        try:
            return trio.from_thread.run_sync(self._own.offer, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise stopping() from None

    def done(self, offer: Offer) -> None:
        """See `Source.done`. The sockets are this process's own, and stay open."""

    def give_up(self, taken: Sequence[int]) -> None:
        """See `Source.give_up`."""
        trio.from_thread.run(self._own.give_up, taken, trio_token=self._token)
