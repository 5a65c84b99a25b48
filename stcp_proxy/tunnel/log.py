"""How log lines look: words on a terminal, JSON otherwise, on standard error."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final, Literal

import structlog

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(level: str = "info", style: Literal["text", "json"] | None = None, *, worker: int | None = None) -> None:
    """Set up structlog for the process.

    Args:
        level: the least severe level to show, one of `LEVELS`.
        style: None is text where standard error is a terminal, JSON otherwise.
        worker: number of this process among several, to stand in every line.
    """
    if style is None:
        style = "text" if sys.stderr.isatty() else "json"
    renderer: structlog.typing.Processor
    if style == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    else:
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            *([] if worker is None else [_name_worker(worker)]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if style == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def _name_worker(worker: int) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker
        return event

    return add


class OncePerSecond:
    """Lets a repeated event through once a second, and counts what it kept back."""

    __slots__ = ("_held", "_last")

    def __init__(self) -> None:
        self._last = float("-inf")
        self._held = 0

    def take(self) -> int | None:
        """How many events this one stands for, or None when it is to be kept back."""
        now = time.monotonic()
        self._held += 1
        if now - self._last < 1.0:
            return None
        self._last, held, self._held = now, self._held, 0
        return held
