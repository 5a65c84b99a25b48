"""Accept in the engine's loop: a listener that the engine watches, so that a new connection costs no turn of Trio's loop."""

from __future__ import annotations

import socket
from collections.abc import Callable

import structlog
import trio

from stcp_proxy.relay.watcher import Watching

_log = structlog.get_logger("stcp_proxy.tunnel")


class ListenerWatch:
    """One listening socket while the engine watches it. Fulfils `Watcher`.

    Args:
        engine: watches it.
        listener: the listening socket.
        has_room: whether the limits admit a connection.
        accept: accepts a batch of connections; returns False when the system has no descriptor or memory for more.
    """

    def __init__(
        self, engine: Watching, listener: socket.socket, has_room: Callable[[], bool], accept: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._listener = listener
        self._has_room = has_room
        self._accept = accept
        self._exhausted = False
        self._over = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    async def until_full(self) -> bool:
        """Accept until callers have to wait.

        Returns:
            Whether the system has no room for more. If not, a limit is reached or the engine watches no listeners.
        """
        if not self._engine.watch(self._listener, self):
            return False
        try:
            await self._over.wait()
        finally:
            self._engine.unwatch(self._listener, self)
        return self._exhausted

    def on_news(self, _mask: int) -> None:
        """Connections wait in the backlog."""
        if not self._has_room():
            self._stop()
        elif not self._accept():
            self._exhausted = True
            self._stop()

    def _stop(self) -> None:
        """Stop watching the listener, and wake the accepting task."""
        self._engine.unwatch(self._listener, self)
        self.on_lost()

    def on_lost(self) -> None:
        """The engine has stopped watching the listener."""
        self._token.run_sync_soon(self._over.set, idempotent=True)

    def on_deadline(self) -> None:
        """Do nothing: a listener is watched without a deadline."""

    def fail(self, exc: BaseException) -> None:
        """A bug: accept in the task."""
        _log.error("accepting failed in the engine's loop", why=repr(exc), exc_info=exc)
        self._stop()
