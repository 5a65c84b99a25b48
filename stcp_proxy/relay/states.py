"""States of a relayed connection, and the events that change them.

This table covers the direction from the plain leg to the wire leg, and the end of the connection. The direction from the wire leg
has a table of its own: `stcp_proxy.protocol.lifecycle`. A missing key is a bug.

    OPEN -> UP_ENDED                the application ended its direction
    OPEN, UP_ENDED -> WIRE_BROKEN   a write to the wire leg failed
    OPEN, UP_ENDED -> RESETTING     this side ends the connection by RESET
    any -> CLOSED                   both legs are closed
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """What a relayed connection does now."""

    __hash__ = object.__hash__  # Enum's own is a Python function

    OPEN = enum.auto()
    """Reads both legs."""
    UP_ENDED = enum.auto()
    """The plain leg reached EOF: FIN is sent or waits in `wire_left`."""
    WIRE_BROKEN = enum.auto()
    """The wire leg takes no bytes. It is read to its end, because it may still hold a RESET that says why."""
    RESETTING = enum.auto()
    """The plain leg is closed. The wire leg carries RESET, and is read until the peer closes it."""
    CLOSED = enum.auto()
    """Both legs are closed and the owner knows the end."""


class Event(enum.Enum):
    """What changes the state."""

    __hash__ = object.__hash__  # Enum's own is a Python function

    PLAIN_EOF = enum.auto()
    WIRE_BROKE = enum.auto()
    RESET = enum.auto()
    CLOSE = enum.auto()


NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.OPEN, Event.PLAIN_EOF): State.UP_ENDED,
    (State.OPEN, Event.WIRE_BROKE): State.WIRE_BROKEN,
    (State.OPEN, Event.RESET): State.RESETTING,
    (State.OPEN, Event.CLOSE): State.CLOSED,
    (State.UP_ENDED, Event.WIRE_BROKE): State.WIRE_BROKEN,
    (State.UP_ENDED, Event.RESET): State.RESETTING,
    (State.UP_ENDED, Event.CLOSE): State.CLOSED,
    (State.WIRE_BROKEN, Event.CLOSE): State.CLOSED,
    (State.RESETTING, Event.CLOSE): State.CLOSED,
}

RELAYING: Final = (State.OPEN, State.UP_ENDED, State.WIRE_BROKEN)
"""States in which bytes from the wire leg go to the plain leg."""
