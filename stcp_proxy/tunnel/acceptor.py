"""The listening sockets of one tunnel, and the accepting of connections within the limits.

When a limit is reached nothing is accepted: new connections wait in the kernel's backlog. The callers of a listen tunnel are
unauthenticated at first. There the oldest loses its place after a second of silence, whichever limit is reached, so that a few
hundred silent callers cannot block the listener.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.net.address import describe_sockaddr
from stcp_proxy.net.listen import close_listeners, listening_on, open_listeners
from stcp_proxy.net.shortage import EXHAUSTED
from stcp_proxy.net.socket_options import tune_accepted, tune_listener
from stcp_proxy.net.unix_socket import change_mode, in_place, remember_file
from stcp_proxy.session import intercept
from stcp_proxy.tunnel.connections import LiveConnections

_log = structlog.get_logger("stcp_proxy.tunnel")

BACKLOG: Final = 4096
_BATCH: Final = 64
"""Connections accepted from one listener before others get their turn."""
_EXHAUSTED_PAUSE: Final = 0.1

Admit = Callable[[socket.socket, str, trio.Nursery], None]
"""Takes an accepted socket, the client's address as text, and the nursery for the connection's task."""


class Acceptor:
    """Accepts the connections of one tunnel.

    Args:
        plan: the tunnel.
        live: its connections, for the limits.
        admit: takes each accepted connection.

    Attributes:
        listeners: the listening sockets; empty when the tunnel does not listen.
    """

    def __init__(self, plan: TunnelPlan, live: LiveConnections, admit: Admit) -> None:
        self.listeners: list[socket.socket] = []
        self._plan = plan
        self._live = live
        self._admit = admit

    def open(self, listeners: list[socket.socket] | None) -> None:
        """Bind and listen.

        Args:
            listeners: listening sockets in place of the plan's own address, now owned by the acceptor; None to bind.

        Raises:
            StcpError: it cannot listen.
        """
        if listeners is None:
            listeners = open_listeners(self._plan.bind, backlog=BACKLOG, mode=self._plan.bind_mode, freebind=self._plan.freebind)
        self.listeners = listeners
        intercept.fit(self._plan, listeners)
        for listener in listeners:
            tune_listener(listener)
            remember_file(listener)

    def close(self) -> None:
        """Stop listening."""
        close_listeners(self.give_up())

    def give_up(self) -> list[socket.socket]:
        """Hand the listening sockets to the caller as they are: connections in their backlogs go on waiting."""
        listeners, self.listeners = self.listeners, []
        return listeners

    def replace(self, plan: TunnelPlan) -> None:
        """Accept by another plan from now on."""
        if plan.bind_mode != self._plan.bind_mode:
            change_mode(self.listeners, plan.bind_mode)
        self._plan = plan
        self._live.wake()  # a limit may have been raised

    @property
    def addresses(self) -> list[str]:
        """The addresses of the listening sockets."""
        return listening_on(self.listeners)

    @property
    def lost(self) -> list[str]:
        """The addresses of unix sockets whose file was removed or replaced: nobody can connect to them."""
        return listening_on(listener for listener in self.listeners if not in_place(listener))

    async def run(self, connections: trio.Nursery) -> None:
        """Accept until cancelled; each connection becomes a task of `connections`."""
        async with trio.open_nursery() as nursery:
            for listener in self.listeners:
                nursery.start_soon(self._accept_from, listener, connections)

    async def _accept_from(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener.fileno())
            await self._wait_for_room()  # only when a caller waits: without one, nobody has to lose a place
            if not self._accept_batch(listener, connections):
                await trio.sleep(_EXHAUSTED_PAUSE)

    def accept_waiting(self, listeners: list[socket.socket], connections: trio.Nursery) -> None:
        """Accept what waits in the backlogs of sockets that are about to be closed, as far as the limits allow."""
        for listener in listeners:
            self._accept_batch(listener, connections)

    def _accept_batch(self, listener: socket.socket, connections: trio.Nursery) -> bool:
        """Accept one batch within the limits. Returns False when the system has no descriptor or memory for more."""
        family = listener.family
        for _ in range(_BATCH):
            if not self._has_room():
                break
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in EXHAUSTED:
                    self._live.ledger.limits["descriptors"] += 1
                    self._log_exhausted(exc)
                    return False
                continue
            sock.setblocking(False)
            tune_accepted(sock, address)
            # The clients of a unix socket have no address, as a rule.
            self._admit(sock, describe_sockaddr(family, address) if address else "unix", connections)
        return True

    def _has_room(self) -> bool:
        return self._full_limit() is None

    def _full_limit(self) -> str | None:
        """The name of a limit that is reached."""
        if len(self._live.unauthenticated) >= self._plan.max_handshakes:
            return "max_handshakes"
        if len(self._live) >= self._plan.max_connections:
            return "max_connections"
        return "descriptors" if self._live.descriptors.full else None

    async def _wait_for_room(self) -> None:
        while (full := self._full_limit()) is not None:
            self._live.ledger.limits[full] += 1
            self._log_full(full)
            # The callers of a connect tunnel are this host's own applications, and keep their places.
            seconds = self._live.unauthenticated.make_room() if self._plan.mode is Mode.LISTEN else float("inf")
            with trio.move_on_after(seconds):
                await self._live.changed.park()

    def _log_full(self, full: str) -> None:
        if full == "descriptors":
            value, remedy = self._live.descriptors.places, "raise the limit of open files (LimitNOFILE, ulimit -n)"
        else:
            value, remedy = getattr(self._plan, full), f"raise {full} if this load is meant"
        _log.warning("limit reached: new connections wait", tunnel=self._plan.name, limit=full, value=value, remedy=remedy)

    def _log_exhausted(self, exc: OSError) -> None:
        _log.error(
            "cannot accept: new connections wait",
            tunnel=self._plan.name,
            why=exc.strerror,
            remedy="raise the limit of open files (ulimit -n, LimitNOFILE) or lower max_connections",
        )
