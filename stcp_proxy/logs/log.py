"""How log lines look: words on a terminal, JSON otherwise, on standard error.

A line that cannot be written (the disk is full, whoever read the log is gone) is lost, and that is all: connections go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO, cast

import structlog

from stcp_proxy.config import LogPlan
from stcp_proxy.logs import classes
from stcp_proxy.logs.rate_limit import Repeats, say_kept_back
from stcp_proxy.logs.rate_limit import processor as limit

REPEATS: Final = Repeats(say_kept_back)
"""What this process has said of late; `repeats.telling` says what it keeps back."""

LEVELS: Final = ("debug", "info", "warning", "error")

_worker: int | None = None


def configure(plan: LogPlan, *, worker: int | None = None) -> None:
    """Set up structlog for the process.

    Args:
        plan: what is to be said, and how it looks.
        worker: number of this process among several, to stand in every line.
    """
    global _worker
    _worker = worker
    structlog.configure(
        processors=_processors(plan),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        # One write for a line: workers share the file.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )


def change(plan: LogPlan) -> None:
    """Another plan for a process that has been set up: loggers keep their list of processors, so that one is
    changed in place.
    """
    structlog.get_config()["processors"][:] = _processors(plan)


def _processors(plan: LogPlan) -> list[structlog.typing.Processor]:
    terminal = _Unfailing(sys.stderr).isatty()
    style = plan.format
    if style is None:
        style = "text" if terminal else "json"
    renderer: structlog.typing.Processor
    if style == "text":
        # A plain traceback: the default one shows local variables, which are keys and what applications say.
        renderer = structlog.dev.ConsoleRenderer(
            colors=terminal, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    else:
        renderer = structlog.processors.JSONRenderer()
    return [
        _OnlyFrom(plan.level),
        *([] if _worker is None else [_name_worker(_worker)]),
        structlog.processors.add_log_level,
        *([classes.processor(plan.quiet)] if plan.quiet else []),
        limit(REPEATS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([structlog.processors.format_exc_info] if style == "json" else []),
        renderer,
    ]


class _OnlyFrom:
    """The step of structlog's chain that drops what is below a level."""

    def __init__(self, level: str) -> None:
        self.hidden: Final = LEVELS[: LEVELS.index(level)]

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in self.hidden:
            raise structlog.DropEvent
        return event


def is_hidden(level: str) -> bool:
    """Whether lines of this level are dropped: for whoever would make many of them for nothing."""
    first = structlog.get_config()["processors"][0]
    return isinstance(first, _OnlyFrom) and level in first.hidden


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
