"""A wire leg at rest that the engine's loop watches."""

from __future__ import annotations

from typing import Protocol

import structlog

from stcp_proxy.relay.watcher import Watching
from stcp_proxy.session.peer_leg import PeerLeg

_log = structlog.get_logger("stcp_proxy.tunnel")


class LegHolder(Protocol):
    """The object that holds legs at rest."""

    def read(self, leg: PeerLeg, /) -> None:
        """Read what the peer says on a leg at rest."""

    def watch_lost(self, leg: PeerLeg, /) -> None:
        """Watch a leg by other means, because the engine has stopped watching it."""

    def drop(self, leg: PeerLeg, /) -> None:
        """Close a leg at once."""


class LegWatch:
    """Fulfils `Watcher` for one leg at rest.

    Args:
        engine: watches it.
        leg: the leg.
        holder: holds it.
    """

    __slots__ = ("_engine", "_holder", "_leg")

    def __init__(self, engine: Watching, leg: PeerLeg, holder: LegHolder) -> None:
        self._engine = engine
        self._leg = leg
        self._holder = holder

    def end(self) -> None:
        """Stop watching the leg."""
        self._engine.unwatch(self._leg.stream.socket, self)

    def on_news(self, _mask: int) -> None:
        """Something has arrived on the leg, or it has ended. Later events of the batch come first once its time is over."""
        if self._engine.begins.may(self._engine.now):
            self._holder.read(self._leg)

    def on_lost(self) -> None:
        """The engine has stopped watching the leg."""
        self._holder.watch_lost(self._leg)

    def on_deadline(self) -> None:
        """Do nothing: a leg at rest is watched without a deadline."""

    def fail(self, exc: BaseException) -> None:
        """A bug: end the leg."""
        _log.error("a kept wire leg failed", client=self._leg.name, why=repr(exc), exc_info=exc)
        self._holder.drop(self._leg)
