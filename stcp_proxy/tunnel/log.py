"""How log lines look: words on a terminal, JSON otherwise, on standard error.

A line that cannot be written (the disk is full, whoever read the log is gone) is lost, and that is all: connections go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Final, Literal, TextIO, cast

import structlog

LEVELS: Final = ("debug", "info", "warning", "error")


def configure(level: str = "info", style: Literal["text", "json"] | None = None, *, worker: int | None = None) -> None:
    """Set up structlog for the process.

    Args:
        level: the least severe level to show, one of `LEVELS`.
        style: None is text where standard error is a terminal, JSON otherwise.
        worker: number of this process among several, to stand in every line.
    """
    stream = _Unfailing(sys.stderr)
    if style is None:
        style = "text" if stream.isatty() else "json"
    renderer: structlog.typing.Processor
    if style == "text":
        # A plain traceback: the default one shows local variables, which are keys and what applications say.
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
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
        # One write for a line: workers share the file.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )


class _Unfailing:
    """A file for log lines that loses them rather than raise: connections do not end because a disk is full, or because whoever
    read the log is gone. It may be closed, or None where the process began without one.
    """

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def isatty(self) -> bool:
        return self._file is not None and not self._file.closed and self._file.isatty()

    def write(self, text: str) -> None:
        with self._losing():
            if self._file is not None:
                self._file.write(text)

    def flush(self) -> None:
        with self._losing():
            if self._file is not None:
                self._file.flush()

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # For good: what is still buffered would fail again at exit, and spoil its status.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                if self._file is not None:
                    os.dup2(nowhere.fileno(), self._file.fileno())
        except (OSError, ValueError):
            pass


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
