"""Load the fast path in C (``lane/``), and describe its interface.

setup.py builds it where there is a C compiler. It is optional: the engine does the same without it, more slowly.
``STCP_COMPILED=0`` in the environment turns it off. With ``STCP_COMPILED=1`` the proxy does not start without it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from stcp_proxy.protocol.frames import CipherDirection, Scratch
from stcp_proxy.protocol.lifecycle import Phase
from stcp_proxy.relay.states import State

GUEST: Final = 1
"""Bit in the result of `Lane.run`: the guest descriptor is ready."""
SEEN: Final = 2
"""Bit in the result of `Lane.run`: an event was served. Events of connections that are queued for a turn do not count."""


class Lane(Protocol):
    """The interface of the fast path."""

    guest: int
    """A further descriptor to watch, whose readiness `run` reports; -1 is none."""
    read_size: int
    """Most bytes of one read."""
    small_at: float
    """Time of the last small read, seconds."""
    small_gap: float
    """Mean time between two small reads, seconds; see `turns.Small`."""
    gap: float
    """Seconds between the last two batches of events; infinite where the last one is no sign of more."""
    found: float
    """Share of the last polls before a sleep that found an event. Below a quarter, `run` hardly polls."""

    def run(self, wait: float | None, once: bool) -> int:
        """Relay until the engine has other work to do, or the time is over.

        Args:
            wait: seconds; None is no limit.
            once: return after the first wait.

        Returns:
            GUEST, SEEN, or both together.
        """
        ...

    def up(self, duplex: object, plain: int, wire: int) -> None:
        """Do the work of `PlainToWire._up`, by descriptors. The wire leg has nothing left to send."""
        ...

    def down(self, duplex: object, wire: int, plain: int) -> None:
        """Do the work of `WireToPlain._down` while DATA may come. The plain leg has nothing left to send."""
        ...

    def set(self, fd: int, other: int, duplex: object, handler: Callable[[int], None], wire: bool) -> None:
        """Add a leg.

        Args:
            fd: descriptor of the leg.
            other: descriptor of the connection's other leg; -1 for a socket that is no leg.
            duplex: the connection; for a socket that is no leg, its watcher.
            handler: its method for events that the fast path does not handle.
            wire: whether it is the wire leg.
        """
        ...

    def forget(self, fd: int) -> None:
        """Act on no further event of this descriptor."""
        ...


class Driven(Protocol):
    """What the fast path needs of an engine."""

    now: float
    """Time of the batch under way, seconds; set by `Lane.run`."""

    @property
    def scratch(self) -> Scratch:
        """Its buffers."""
        ...


def make_lane(engine: Driven, epoll: int, duplex: type, *, wanted: bool | None = None) -> Lane | None:
    """Make the fast path of one engine. Returns None if it was not built or is turned off.

    Args:
        engine: the engine whose connections it carries.
        epoll: descriptor of the engine's epoll set.
        duplex: the class of the connections.
        wanted: whether to use it. None leaves that to STCP_COMPILED and to whether it was built.

    Raises:
        ImportError: the fast path is required, and was not built.
    """
    module = _module(wanted)
    if module is None:
        return None
    source, result = engine.scratch.source, engine.scratch.result
    return cast(Lane, module.Lane(engine, epoll, -1, duplex, CipherDirection, Phase.STREAM, State, source, result))


def compiled() -> bool:
    """Whether the user-space engine uses the fast path in C."""
    try:
        return _module(None) is not None
    except ImportError:
        return False


def is_missing() -> bool:
    """Whether STCP_COMPILED requires the fast path, and it was not built."""
    return os.environ.get("STCP_COMPILED") == "1" and not compiled()


def _module(wanted: bool | None) -> Any:
    if wanted is None:
        wanted = {"0": False, "1": True}.get(os.environ.get("STCP_COMPILED", ""))
    if wanted is False:
        return None
    try:
        return importlib.import_module("stcp_proxy.relay._lane")
    except ImportError:
        if wanted:
            raise
        return None
