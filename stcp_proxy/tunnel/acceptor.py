"""The listening sockets of one tunnel, and the accepting of connections within the limits.

On a connect tunnel nothing is accepted while a limit is reached: new connections wait in the kernel's backlog.

The callers of a listen tunnel are unauthenticated at first, and enter its lobby. When a limit is reached, a stranger in the lobby
loses its place to a newcomer. So silent callers cannot block the listener, however many they are. The backlog stays short, which
matters: the kernel has one queue for all sources, and an honest newcomer would wait behind the others.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog
import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.counters import UNKNOWN
from stcp_proxy.errors import StcpError
from stcp_proxy.net.address import describe_sockaddr
from stcp_proxy.net.listen import close_listeners, listening_on, open_listeners
from stcp_proxy.net.shortage import EXHAUSTED
from stcp_proxy.net.socket_options import tune_accepted, tune_listener
from stcp_proxy.net.token_buckets import TokenBuckets
from stcp_proxy.net.unix_socket import change_mode, in_place, remember_file
from stcp_proxy.relay.watcher import Watching
from stcp_proxy.session import intercept
from stcp_proxy.session.record import Connection, once_more
from stcp_proxy.tunnel.caller import Caller
from stcp_proxy.tunnel.connections import LiveConnections, no_place
from stcp_proxy.tunnel.listener_watch import ListenerWatch
from stcp_proxy.tunnel.lobby import Lobby

_log = structlog.get_logger("stcp_proxy.tunnel")

BACKLOG: Final = 4096
_BATCH: Final = 64
"""Connections that are accepted from one listener before other listeners are served."""
_ENGINE_BATCH: Final = 16
"""The same in the engine's loop. On a connect tunnel each connection goes on to OPEN at once."""
_EXHAUSTED_PAUSE: Final = 0.1
"""Seconds without accepting when the system has no descriptor or memory."""
_LOOK_AGAIN: Final = 0.01
"""Seconds until the next look for a place, when a session has bytes to read first."""

_MOST_SESSIONS: Final = 1024
"""The largest number of handshakes under way in one tunnel. Each takes a task and some 10 KiB."""
_RECORDS: Final = 10.0
"""Refused callers of the lobby that get a record, for each reason and second. The others are only counted."""
_RECORDS_BURST: Final = 100.0

Admit = Callable[[socket.socket, str, trio.Nursery, float, bytes], bool]
"""Takes an accepted socket, the client's address as text, the nursery for the connection's task, the seconds since accept, and
the ephemeral key of a first message that has arrived. Returns whether a task runs the session."""


class Acceptor:
    """Accepts the connections of one tunnel.

    Args:
        plan: the tunnel.
        live: its connections, for the limits.
        admit: takes each accepted connection.
        watching: the engine, where sessions of the tunnel may begin without a task.

    Attributes:
        listeners: the listening sockets; empty when the tunnel does not listen.
    """

    def __init__(
        self, plan: TunnelPlan, live: LiveConnections, admit: Admit, watching: Callable[[], Watching | None] = lambda: None
    ) -> None:
        self.listeners: list[socket.socket] = []
        self._plan = plan
        self._live = live
        self._admit = admit
        self._watching = watching
        self._records: Final = TokenBuckets(_RECORDS, _RECORDS_BURST)
        self._evicting_for = "descriptors"
        """The limit for which strangers lose their places now. Other tunnels evict them only for descriptors."""
        self._logged_at = float("-inf")
        """When evictions were last logged, on Trio's clock."""
        if plan.mode is Mode.LISTEN:
            live.lobby = Lobby(self, watching)
        self._configure_lobby()

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
        """Give the listening sockets to the caller. Connections in their backlogs go on waiting."""
        listeners, self.listeners = self.listeners, []
        return listeners

    def replace(self, plan: TunnelPlan) -> None:
        """Use a new plan from now on."""
        if plan.bind_mode != self._plan.bind_mode:
            change_mode(self.listeners, plan.bind_mode)
        self._plan = plan
        self._configure_lobby()
        self._live.wake()  # a limit may have been raised

    def _configure_lobby(self) -> None:
        lobby = self._live.lobby
        if lobby is not None:
            lobby.configure(self._plan.suites, self._plan.handshake_timeout)

    @property
    def addresses(self) -> list[str]:
        """The addresses of the listening sockets."""
        return list(dict.fromkeys(listening_on(self.listeners)))  # after a takeover from several workers, sockets share one

    @property
    def lost(self) -> list[str]:
        """The addresses of unix sockets whose file was removed or replaced: nobody can connect to them."""
        return listening_on(listener for listener in self.listeners if not in_place(listener))

    async def run(self, connections: trio.Nursery) -> None:
        """Accept until cancelled; each connection becomes a task of `connections`."""
        lobby = self._live.lobby
        with contextlib.nullcontext() if lobby is None else lobby.accepting(connections):
            async with trio.open_nursery() as nursery:
                for listener in self.listeners:
                    nursery.start_soon(self._accept_from, listener, connections)

    async def _accept_from(self, listener: socket.socket, connections: trio.Nursery) -> None:
        while True:
            exhausted = await self._accept_in_engine(listener, connections)
            if not exhausted:
                await trio.lowlevel.wait_readable(listener.fileno())
                await self._wait_for_room()  # a caller waits now; before, no stranger had to lose its place
                exhausted = not self._accept_batch(listener, connections)
            if exhausted:
                await trio.sleep(_EXHAUSTED_PAUSE)

    async def _accept_in_engine(self, listener: socket.socket, connections: trio.Nursery) -> bool:
        """Let the engine's loop accept, until callers have to wait.

        On a listen tunnel, this is only while the engine's loop drives the lobby.

        Returns:
            True if the system has no descriptor or memory for more connections.
        """
        lobby = self._live.lobby
        watching = self._watching() if lobby is None or lobby.in_engine else None
        if watching is None:
            return False
        accepting = ListenerWatch(
            watching,
            listener,
            lambda: self._full_limit() is None,
            lambda: self._accept_batch(listener, connections, _ENGINE_BATCH, has_room=True),
        )
        return await accepting.until_full()

    def accept_waiting(self, listeners: list[socket.socket], connections: trio.Nursery) -> None:
        """Accept the connections in the backlogs of sockets that are about to be closed, as far as the limits allow."""
        for listener in listeners:
            self._accept_batch(listener, connections)

    def _accept_batch(
        self, listener: socket.socket, connections: trio.Nursery, most: int = _BATCH, *, has_room: bool = False
    ) -> bool:
        """Accept one batch within the limits.

        Args:
            listener: the listening socket.
            connections: the nursery for the connections' tasks.
            most: the largest number of connections.
            has_room: whether the limits are known to admit the first of them.

        Returns:
            False when the system has no descriptor or memory for more.
        """
        waits = select.poll()
        waits.register(listener, select.POLLIN)
        for accepted in range(most):
            if accepted and not waits.poll(0):
                break  # an accept that finds nothing costs more
            # A stranger loses its place only if a caller waits.
            full = None if has_room and not accepted else self._full_limit()
            if full is not None and not (waits.poll(0) and self._take_place(full) == 0):
                break
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno in EXHAUSTED and self._live.descriptors.reclaim() > 0:
                    self._live.ledger.limits["descriptors"] += 1
                    self._log_exhausted(exc)
                    return False
                continue
            sock.setblocking(False)
            self._live.ledger.accepted += 1
            if self._live.lobby is not None:
                self._live.lobby.add(sock, address, connections)
            else:
                self._start(sock, address, connections)
        return True

    def _start(
        self, sock: socket.socket, address: Any, connections: trio.Nursery, waited: float = 0.0, ephemeral: bytes = b""
    ) -> bool:
        tune_accepted(sock, address)
        return self._admit(sock, _client(sock, address), connections, waited, ephemeral)

    # -- limits ------------------------------------------------------------------------------------------------------------

    def _full_limit(self) -> str | None:
        """The name of a limit that is reached."""
        if self._live.unproved >= self._plan.max_handshakes:
            return "max_handshakes"
        if len(self._live) >= self._plan.max_connections:
            return "max_connections"
        descriptors = self._live.descriptors
        return "descriptors" if descriptors.full and not descriptors.make_room() else None

    async def _wait_for_room(self) -> None:
        while (full := self._full_limit()) is not None:
            seconds = self._take_place(full)
            if seconds == 0:
                return
            if self._plan.mode is Mode.LISTEN:
                # On a connect tunnel the callers are applications of this host, which keep their places.
                seconds = min(seconds, self._live.unauthenticated.make_room() or _LOOK_AGAIN)
            self._live.ledger.limits[full] += 1
            self._log_full(full)
            with trio.move_on_after(seconds):
                await self._live.changed.park()

    def _take_place(self, full: str) -> float:
        """Take the place of a stranger. Returns 0 if a place is free now, else the seconds until one may be free."""
        self._evicting_for = full
        try:
            return self._live.descriptors.reclaim() if full == "descriptors" else self._live.give_up_stranger()
        finally:
            self._evicting_for = "descriptors"

    # -- the host of the lobby ---------------------------------------------------------------------------------------------

    def entered(self) -> None:
        """See `lobby.Host.entered`."""
        self._live.descriptors.take()

    def left(self) -> None:
        """See `lobby.Host.left`."""
        self._live.place_is_free()

    def may_begin(self) -> bool:
        """See `lobby.Host.may_begin`."""
        unauthenticated = self._live.unauthenticated
        if len(unauthenticated) < min(self._plan.max_handshakes, _MOST_SESSIONS):
            return True
        unauthenticated.make_room()
        return False

    def begin(self, caller: Caller, connections: trio.Nursery) -> bool:
        """See `lobby.Host.begin`."""
        return self._start(caller.sock, caller.address, connections, trio.current_time() - caller.since, caller.ephemeral)

    def refuse(self, caller: Caller, failure: StcpError) -> None:
        """See `lobby.Host.refuse`."""
        now, label = trio.current_time(), failure.label
        if not self._records.take(label, now):
            counts = self._live.ledger
            if failure.judgement.is_check:
                counts.checks[label] += 1
            else:
                counts.refused[UNKNOWN, label] += 1
            once_more(failure, self._plan.name)
            return
        waited = now - caller.since
        Connection(self._plan.name, _client(caller.sock, caller.address), self._live, waited=waited).failed(failure)

    def why_evicted(self) -> StcpError:
        """See `lobby.Host.why_evicted`."""
        ledger, full = self._live.ledger, self._evicting_for
        ledger.limits[full] += 1
        if trio.current_time() >= self._logged_at + 1:
            self._logged_at = trio.current_time()
            self._log_evicted(full)
        return no_place()

    def _log_evicted(self, full: str) -> None:
        lobby = self._live.lobby
        _log.warning(
            "limit reached: strangers lose their places",
            tunnel=self._plan.name,
            limit=full,
            waiting=0 if lobby is None else len(lobby),
            remedy=f"raise {full} if these callers are honest peers; otherwise keep them away by a firewall",
        )

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


def _client(sock: socket.socket, address: Any) -> str:
    """A client's address as text. Most clients of a unix socket have none."""
    return describe_sockaddr(sock.family, address) if address else "unix"
