"""Which class a log line belongs to: what `quiet` silences.

A failure of this program itself, a limit and everything about the process as a whole belong to none: they are always said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import structlog

from stcp_proxy.config import LogClass
from stcp_proxy.errors import FrameError, FrameNotAuthentic, HandshakeError, StcpError


def _labels(error: type[StcpError]) -> Iterator[str]:
    yield error.label
    for kind in error.__subclasses__():
        yield from _labels(kind)


_HANDSHAKE: Final = frozenset(_labels(HandshakeError))
_FIRST_FRAME: Final = frozenset({FrameError.label, FrameNotAuthentic.label})
"""Labels that belong to the handshake as long as the peer has no name yet: its first frame is its proof."""


def class_of(event: Mapping[str, Any]) -> LogClass | None:
    """The class of a log line.

    Args:
        event: its fields, level included.
    """
    if event.get("level") == "error":
        return None
    reason = event.get("reason")
    match event["event"]:
        case "connection closed":
            return LogClass.CONNECTIONS if event.get("level") == "info" else LogClass.CONNECTION_ERRORS
        case "connection refused" | "trying the next address":
            early = reason in _HANDSHAKE or (reason in _FIRST_FRAME and "peer" not in event)
            return LogClass.HANDSHAKE_ERRORS if early else LogClass.CONNECTION_ERRORS
    return None


def processor(quiet: Collection[LogClass]) -> structlog.typing.Processor:
    """The step of structlog's chain that drops these classes, behind the one that adds the level."""

    def drop(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if class_of(event) in quiet:
            raise structlog.DropEvent
        return event

    return drop
