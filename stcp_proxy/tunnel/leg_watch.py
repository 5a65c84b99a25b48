"""A wire leg at rest that the engine's loop watches."""

from __future__ import annotations

from typing import Protocol

import structlog

from stcp_proxy.relay.watcher import Watching
from stcp_proxy.session.peer_leg import PeerLeg

_log = structlog.get_logger("stcp_proxy.tunnel")


class LegHolder(Protocol):
    """Holds legs at rest."""

    def read(self, leg: PeerLeg, /) -> None:
        """Read what the peer says on a leg at rest."""

    def watch_lost(self, leg: PeerLeg, /) -> None:
        """Watch a leg by other means: the engine does not any more."""

    def drop(self, leg: PeerLeg, /) -> None:
        """Close a leg without ceremony."""


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
        """Watch it no more."""
        self._engine.unwatch(self._leg.stream.socket, self)

    def on_news(self, _mask: int) -> None:
        """Something has arrived on the leg, or it has ended."""
        self._holder.read(self._leg)

    def on_lost(self) -> None:
        """The engine watches it no more."""
        self._holder.watch_lost(self._leg)

    def on_deadline(self) -> None:
        """There is none."""

    def fail(self, exc: BaseException) -> None:
        """A bug: end the leg."""
        _log.error("a kept wire leg failed", client=self._leg.name, why=repr(exc), exc_info=exc)
        self._holder.drop(self._leg)
