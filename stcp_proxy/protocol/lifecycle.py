"""Which frame may follow which, for one direction of a connection (PROTOCOL.md sections 2 and 3).

    initiator's frames:   OPEN   then  DATA* FIN?   and RESET at any time after OPEN
    responder's frames:   ACCEPT then  DATA* FIN?   and RESET at any time after ACCEPT;   or REJECT alone

The laws are the table; a missing key is the error.
"""

from __future__ import annotations

import enum
from typing import Final

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.wire import FrameType


class Phase(enum.Enum):
    """Where one direction stands."""

    EXPECT_OPEN = enum.auto()
    EXPECT_ACCEPT = enum.auto()
    STREAM = enum.auto()
    ENDED = enum.auto()
    """FIN has come: only RESET may follow."""
    CLOSED = enum.auto()
    """REJECT or RESET has come: nothing may follow."""


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
    """The phase after a frame of type `kind`.

    Raises:
        FrameError: that frame may not come now.
    """
    try:
        return NEXT[phase, FrameType(kind)]
    except (KeyError, ValueError):
        name = FrameType(kind).name if kind in set(FrameType) else str(kind)
        raise FrameError(f"a {name} frame is out of place: the direction is in phase {phase.name}") from None
