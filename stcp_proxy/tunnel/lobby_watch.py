"""Let the engine's loop drive a lobby, so that a new connection costs no turn of Trio's loop."""

from __future__ import annotations

import math
import select
from typing import Final, Protocol

import structlog
import trio

from stcp_proxy.relay.watcher import Watching

_log = structlog.get_logger("stcp_proxy.tunnel")

PAUSE: Final = 0.02
"""Seconds until the next look, while a caller waits for its handshake and the limits admit none."""


class Steps(Protocol):
    """What a lobby does, whoever drives it."""

    def look(self) -> None:
        """See what callers have said."""

    def expire(self) -> None:
        """Refuse the callers whose time is over. Trio's clock has to be right: see `process/running_clock.py`."""

    @property
    def waits(self) -> bool:
        """Whether a caller waits for its handshake."""

    @property
    def may_begin(self) -> bool:
        """Whether a caller waits for its handshake, and the limits admit one now. It may end a silent session for that."""

    @property
    def relays_first(self) -> bool:
        """Whether the relays have the loop before the next handshake. Asked before each."""

    def begin_one(self) -> bool:
        """Begin the handshake of the caller whose turn it is. Returns whether a task runs its session."""

    def end_of_handshake(self) -> None:
        """Note that the computation of the last handshake is over, up to this side's answer."""

    @property
    def due(self) -> float:
        """When the time of the oldest caller is over, on Trio's clock; infinity without callers."""


class LobbyWatch:
    """One lobby while the engine drives it. Fulfils `Watcher` for its epoll set, and `Busy` while a caller waits for a handshake.

    Args:
        engine: drives the lobby.
        callers: the epoll set of the callers.
        lobby: the lobby.
    """

    is_bulk: Final = False

    def __init__(self, engine: Watching, callers: select.epoll, lobby: Steps) -> None:
        self._engine = engine
        self._callers = callers
        self._lobby = lobby
        self._due = math.inf
        """When `on_deadline` is called, on the engine's clock."""
        self._is_queued = False
        self._over = trio.Event()
        self._is_over = False
        self._token = trio.lowlevel.current_trio_token()

    async def until_over(self) -> bool:
        """Drive the lobby until `end`, or until the engine cannot.

        Returns:
            False if the engine watches nothing.
        """
        if not self._engine.watch(self._callers, self):
            return False
        try:
            self.go_on()
            await self._over.wait()
        finally:
            self._is_over = True
            self._engine.unwatch(self._callers, self)
        return True

    def end(self) -> None:
        """Let `until_over` return."""
        if not self._is_over:
            self._is_over = True
            self._token.run_sync_soon(self._over.set, idempotent=True)

    def go_on(self) -> None:
        """Take a turn if a caller waits for its handshake, and look again in time."""
        if not self._is_queued and self._lobby.waits:
            if self._lobby.may_begin:
                self._is_queued = True
                self._engine.again.append(self)
            else:
                self._look_at(self._engine.now + PAUSE)
        if self._due == math.inf:  # all later callers have as much time, or more
            self._look_at(self._engine.now + max(PAUSE, self._lobby.due - trio.current_time()))

    def _look_at(self, due: float) -> None:
        if due < self._due:
            self._due = due
            self._engine.deadlines.set(self, due)

    def on_news(self, _mask: int) -> None:
        """Callers have said something."""
        if not self._is_over:
            self._lobby.look()
            self.go_on()

    def step(self) -> None:
        """Take a turn behind the events of this batch: begin one handshake, unless the relays go first."""
        self._is_queued = False
        if self._is_over:
            return
        if self._lobby.waits and not self._lobby.relays_first:
            self._lobby.begin_one()
            self._lobby.end_of_handshake()
        self.go_on()

    def on_deadline(self) -> None:
        """A caller's time is over, or a handshake may begin now."""
        self._due = math.inf
        if (
            self._lobby.due <= trio.current_time()
        ):  # unless the process was paused: Trio's clock leaves that out after its next wait
            self._token.run_sync_soon(self._expire, idempotent=True)
        self.on_news(0)

    def _expire(self) -> None:
        if not self._is_over:
            self._lobby.look()
            self._lobby.expire()
            self.go_on()

    def on_lost(self) -> None:
        """The engine has stopped watching the callers."""
        self.end()

    def fail(self, exc: BaseException) -> None:
        """A bug: go on in a task."""
        _log.error("the lobby failed in the engine's loop", why=repr(exc), exc_info=exc)
        self.end()
