"""The user-space engine's short way in C (lane/): whether it is there, and what the engine needs of it.

It is built with the package where there is a C compiler (setup.py), and is never needed: the engine does the same without it.
``STCP_COMPILED=0`` in the environment leaves it unused; ``STCP_COMPILED=1`` refuses to start without it.
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
"""In what `Lane.run` returns: the guest descriptor is ready."""
SEEN: Final = 2
"""In what `Lane.run` returns: there was an event of any kind."""


class Lane(Protocol):
    """What lane/ offers to the engine."""

    guest: int
    """Descriptor to report, or -1."""
    read_size: int
    """Most bytes of one read."""

    def run(self, wait: float | None, once: bool) -> int:
        """Relay until the engine has something to do besides, or the time is over.

        Args:
            wait: seconds; None is no limit.
            once: return after the first wait.

        Returns:
            GUEST, SEEN, or both together.
        """
        ...

    def up(self, duplex: object, plain: int, wire: int) -> None:
        """Plain to wire, for a wire leg that has nothing left to send: what `Duplex._up` does, by descriptors."""
        ...

    def down(self, duplex: object, wire: int, plain: int) -> None:
        """Wire to plain, while DATA may come and the plain leg has nothing left to send: what `Duplex._down` does."""
        ...

    def set(self, fd: int, other: int, duplex: object, handler: Callable[[int], None], wire: bool) -> None:
        """A leg: its descriptor, the connection's other, the method for what is not the common case, and which leg it is."""
        ...

    def forget(self, fd: int) -> None:
        """No event of this descriptor is acted on any more."""
        ...


class Driven(Protocol):
    """What the short way needs of an engine."""

    now: float
    """Time of the batch under way, seconds; set by `Lane.run`."""

    @property
    def scratch(self) -> Scratch:
        """Its buffers."""
        ...


def make_lane(engine: Driven, epoll: int, duplex: type, *, wanted: bool | None = None) -> Lane | None:
    """The short way for one engine, or None where it was not built or is not wanted.

    Args:
        engine: whose connections it carries.
        epoll: descriptor of the engine's epoll set.
        duplex: the class of the connections.
        wanted: whether to have it; None leaves it to the environment and to how the package was built.

    Raises:
        ImportError: it is required, and was not built.
    """
    module = _module(wanted)
    if module is None:
        return None
    source, result = engine.scratch.source, engine.scratch.result
    return cast(Lane, module.Lane(engine, epoll, -1, duplex, CipherDirection, Phase.STREAM, State, source, result))


def compiled() -> bool:
    """Whether the user-space engine has its short way in C."""
    try:
        return _module(None) is not None
    except ImportError:
        return False


def is_missing() -> bool:
    """Whether the environment insists on it, and it was not built."""
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
