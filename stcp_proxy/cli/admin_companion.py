"""The admin address of a process that serves. It may come, move and go with a reload.

The web server is loaded only by processes that have an admin address. With several worker processes the parent opens new
listening sockets, and the first worker serves them. So the parent removes the file of a unix socket, as it does for tunnels.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import trio

from stcp_proxy.config import AdminPlan, Plan
from stcp_proxy.net.listen import close_listeners, open_in_place_of
from stcp_proxy.net.unix_socket import forget_file, remember_file
from stcp_proxy.process.companion_change import Change

if TYPE_CHECKING:
    from stcp_proxy.admin.server import AdminServer
    from stcp_proxy.process.running import Running


class AdminCompanion:
    """See `stcp_proxy.process.companion.Companion`; a context manager.

    Args:
        plan: what the process serves, all worker processes together.
        listeners: listening sockets of an old process at the admin address; None to bind.

    Raises:
        ConfigError: the address cannot be listened on.
    """

    def __init__(self, plan: Plan, listeners: list[socket.socket] | None = None) -> None:
        self._plan = plan.admin
        self._listeners: list[socket.socket] = []
        self._is_parent = False
        self._worker = 0
        self._pairs = {number: _pair() for number in range(1, plan.workers)}
        """For each worker process except the first: the socket for requests, and the socket for answers."""
        self._server: AdminServer | None = None
        self._wanted = trio.Event()
        if plan.admin is not None:
            self._listeners = _open([], plan.admin) if listeners is None else listeners
            for listener in self._listeners:
                remember_file(listener)
            self._load(plan.admin, self._listeners)

    def __enter__(self) -> AdminCompanion:
        return self

    def __exit__(self, *exc: object) -> None:
        close_listeners(self.listeners)

    def forked(self, worker: int | None) -> None:
        """See `Companion.forked`: the first worker process answers for all."""
        for number, (asker, answerer) in self._pairs.items():
            if worker != 0:
                asker.close()
            if worker != number:
                answerer.close()
        if worker is None:
            self._is_parent, self._server = True, None
            self._keep_unix()
            return
        self._worker = worker
        forget_file(self._listeners)  # the parent removes it
        if worker != 0:
            close_listeners(self._listeners)
            self._listeners.clear()  # the server has the same list

    @property
    def listeners(self) -> list[socket.socket]:
        """See `Companion.listeners`; in a process that serves without unix sockets whose file was removed or replaced."""
        return self._listeners if self._server is None else self._server.listeners

    def hand_over(self, taken: Collection[socket.socket]) -> None:
        """See `Companion.hand_over`."""
        if self._server is not None:
            self._server.hand_over(taken)
            return
        forget_file(listener for listener in self._listeners if listener in taken)
        close_listeners(self._listeners)
        self._listeners = []

    def prepare(self, plan: Plan, given: Sequence[socket.socket] | None = None) -> Change | None:
        """See `Changing.prepare`."""
        return None if plan.admin == self._plan else _Change(self, plan.admin, given)

    async def serve(self, running: Running) -> None:
        """See `Companion.serve`."""
        if self._server is None:
            await self._wanted.wait()
        assert self._server is not None  # noqa: S101
        await self._server.serve(running)

    # -- a change --------------------------------------------------------------------------------------------------------------

    def opened(self, plan: AdminPlan) -> list[socket.socket] | None:
        """New listening sockets for a plan; None where the present ones serve it."""
        if self._plan is not None and self._plan.address == plan.address:
            return None
        found = _open(self.listeners, plan)
        for listener in found:
            remember_file(listener)
        return found

    def opens(self) -> bool:
        """Whether this process opens its own listening sockets: it is the parent of workers, or alone."""
        return self._is_parent or not self._pairs

    def load(self) -> None:
        """Load the web server, in a process that will serve."""
        if not self._is_parent:
            import stcp_proxy.admin.server  # noqa: F401

    def change(self, plan: AdminPlan | None, listeners: list[socket.socket] | None) -> None:
        """Serve a plan from now on, in Trio's thread.

        Args:
            plan: the new plan; None for no admin address.
            listeners: new listening sockets, owned by this object; None to keep the present ones.
        """
        before, self._plan = self._plan, plan
        if self._is_parent:
            if listeners is not None:
                close_listeners(self._listeners)
                self._listeners = listeners
                self._keep_unix()
            return
        if self._server is not None:
            if plan != before:
                self._server.change(plan, listeners)
        elif plan is not None:
            self._load(plan, listeners or [])
            self._wanted.set()

    def _load(self, plan: AdminPlan, listeners: list[socket.socket]) -> None:
        from stcp_proxy.admin.server import AdminServer  # the web server is loaded only by those who want it

        self._server = AdminServer(plan, listeners, self._pairs)

    def _keep_unix(self) -> None:
        """Close TCP sockets: only a worker process serves them. The files of unix sockets are this process's."""
        close_listeners(listener for listener in self._listeners if listener.family != socket.AF_UNIX)
        self._listeners = [listener for listener in self._listeners if listener.family == socket.AF_UNIX]


class _Change:
    """See `stcp_proxy.process.companion_change.Change`."""

    def __init__(self, companion: AdminCompanion, plan: AdminPlan | None, given: Sequence[socket.socket] | None) -> None:
        self._companion = companion
        self._plan = plan
        self._listeners: list[socket.socket] | None = []
        if plan is None:
            return
        companion.load()
        if companion.opens():
            self._listeners = companion.opened(plan)
        else:
            self._listeners = None if given is None else list(given)

    @property
    def listeners(self) -> list[socket.socket] | None:
        """See `Change.listeners`."""
        return self._listeners

    def commit(self) -> None:
        """See `Change.commit`."""
        self._companion.change(self._plan, self._listeners)

    def close(self) -> None:
        """See `Change.close`."""
        close_listeners(self._listeners or [])


def _open(leaving: list[socket.socket], plan: AdminPlan) -> list[socket.socket]:
    """Listen on the address of a plan, in place of sockets that listen already."""
    from stcp_proxy.admin.source_limit import BACKLOG

    return open_in_place_of(leaving, plan.address, backlog=BACKLOG)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Connected sockets: one for requests, and one for answers."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setblocking(False)
    return ends
