"""Run the first steps of a session in the engine's loop, without a Trio task.

Most new connections reach their handover without a task: on a kept leg, and on a new one whose handshake is answered within a
moment. A task, its scopes and the turns of Trio's loop would double the cost of a connection on a kept leg. They are about
a tenth of the cost of a connection with a handshake.

Only the driver differs. The steps are the coroutine of `ConnectSession` or `ListenSession`, which a task can run as well
(`net/first_steps`). A session that waits for longer, or needs a function of Trio, goes on in a task from the same point.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Coroutine
from typing import Any, Final

import trio

from stcp_proxy.net.first_steps import Wanted, continued, in_trio_task
from stcp_proxy.relay.watcher import Watching
from stcp_proxy.session.handover import stopping
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections

MOMENT: Final = 0.25
"""Seconds that a session without a task waits for one socket. All longer deadlines belong to Trio."""


class QuickStart:
    """One session while it has no task. Implements `Watcher` for the sockets that it waits for.

    Args:
        live: the connections of the tunnel.
        engine: drives the session.
        connection: its record, which `live.add` has registered.
        steps: the steps of the session.
        connections: the nursery of its task, if it needs one.
    """

    __slots__ = ("_connection", "_connections", "_engine", "_has_begun", "_live", "_socks", "_steps")

    def __init__(
        self,
        live: LiveConnections,
        engine: Watching,
        connection: Connection,
        steps: Coroutine[Any, Any, None],
        connections: trio.Nursery,
    ) -> None:
        self._live = live
        self._engine = engine
        self._connection = connection
        self._steps = steps
        self._connections = connections
        self._socks: tuple[socket.socket, ...] = ()
        """The sockets that it waits for."""
        self._has_begun = False

    def start(self, sock: socket.socket) -> None:
        """Run the session now; called by a task, in the next turn of the engine's loop.

        Args:
            sock: the accepted socket. It takes bytes, so the engine has an event for it at once.
        """
        if not in_trio_task():
            self._run()
        elif not self._wait_for(Wanted((sock,), select.EPOLLOUT)):
            self._go_on_in_task()

    def _run(self) -> None:
        """Run the session until it waits or ends."""
        ready, self._has_begun = self._has_begun or None, True
        try:
            wanted: Wanted | None = self._steps.send(ready)
        except StopIteration:
            self._live.opened(self._connection)
        except Exception as exc:
            self._live.refused(self._connection, exc)
            self._engine.wake_trio()
        else:
            if wanted is None or not self._wait_for(wanted):
                self._go_on_in_task()

    def _wait_for(self, wanted: Wanted) -> bool:
        """Let the engine watch the sockets. Returns whether it watches all of them; otherwise it watches none."""
        self._socks = wanted.socks
        try:
            for sock in wanted.socks:
                if not self._engine.watch(sock, self, mask=wanted.mask, seconds=MOMENT):
                    break
            else:
                return True
        except OSError:  # the kernel has no memory for one more
            pass
        self._stop_waiting()
        return False

    def on_news(self, _mask: int) -> None:
        """A socket is ready."""
        self._stop_waiting()
        self._run()

    def on_deadline(self) -> None:
        """The time for a session without a task is over."""
        self._stop_waiting()
        self._go_on_in_task()

    def on_lost(self) -> None:
        """The engine cannot drive it any more."""
        waits, self._socks = self._socks, ()
        if waits:  # the engine calls this method for each socket
            self._go_on_in_task()

    def fail(self, exc: BaseException) -> None:
        """A bug: end the session."""
        self._stop_waiting()
        self._steps.close()
        self._live.refused(self._connection, exc if isinstance(exc, Exception) else stopping())
        self._engine.wake_trio()

    def _stop_waiting(self) -> None:
        socks, self._socks = self._socks, ()
        for sock in socks:
            self._engine.unwatch(sock, self)

    def _go_on_in_task(self) -> None:
        """Let a task run the rest of the session."""
        try:
            self._connections.start_soon(self._live.go_on, self._connection, self._rest)
        except RuntimeError:  # a stop has closed the nursery
            self._steps.close()
            self._live.refused(self._connection, stopping())
        with contextlib.suppress(trio.RunFinishedError):
            self._engine.wake_trio()

    async def _rest(self) -> None:
        await continued(self._steps)
