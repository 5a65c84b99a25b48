"""Which frame may follow which, for one direction of one connection (PROTOCOL.md section 3).

    initiator's frames:   OPEN   then  DATA* FIN?   and RESET at any time after OPEN
    responder's frames:   ACCEPT then  DATA* FIN?   and RESET at any time after ACCEPT;   or REJECT alone

The table is the rule; a missing key is the error. `leg` has the table for both directions of a leg that is kept.
"""

from __future__ import annotations

import enum
from typing import Final

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.wire import FrameType


class Phase(enum.Enum):
    """Progress of one direction."""

    __hash__ = object.__hash__  # Enum's own is a Python function

    EXPECT_OPEN = enum.auto()
    EXPECT_ACCEPT = enum.auto()
    STREAM = enum.auto()
    ENDED = enum.auto()
    """After FIN. Only RESET may follow."""
    CLOSED = enum.auto()
    """After REJECT or RESET. Nothing may follow."""


NEXT: Final[dict[tuple[Phase, FrameType], Phase]] = {
    (Phase.EXPECT_OPEN, FrameType.OPEN): Phase.STREAM,
    (Phase.EXPECT_ACCEPT, FrameType.ACCEPT): Phase.STREAM,
    (Phase.EXPECT_ACCEPT, FrameType.REJECT): Phase.CLOSED,
    (Phase.STREAM, FrameType.DATA): Phase.STREAM,
    (Phase.STREAM, FrameType.FIN): Phase.ENDED,
    (Phase.STREAM, FrameType.RESET): Phase.CLOSED,
    (Phase.ENDED, FrameType.RESET): Phase.CLOSED,
}


def follow(phase: Phase, kind: int) -> Phase:
    """Give the phase after a frame of type `kind`.

    Raises:
        FrameError: a frame of this type may not come now.
    """
    try:
        return NEXT[phase, kind]  # type: ignore[index]  # a FrameType equals its number
    except KeyError:
        name = FrameType(kind).name if kind in set(FrameType) else str(kind)
        raise FrameError(f"a {name} frame is out of place: the direction is in phase {phase.name}") from None
