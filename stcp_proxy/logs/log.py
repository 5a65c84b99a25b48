"""The format of log lines on standard error: text on a terminal, JSON otherwise.

A line that cannot be written (the disk is full, the reader has ended or hangs) is dropped, and connections go on. `output` has
the details.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Final

import structlog

from stcp_proxy.config import LogPlan
from stcp_proxy.logs import classes
from stcp_proxy.logs.output import Output
from stcp_proxy.logs.rate_limit import Repeats, say_kept_back
from stcp_proxy.logs.rate_limit import processor as limit
from stcp_proxy.logs.text import TextRenderer

REPEATS: Final = Repeats(say_kept_back)
"""The recent events of this process. `rate_limit.telling` writes the events that it has held back."""

LEVELS: Final = ("debug", "info", "warning", "error")

_log = structlog.get_logger("stcp_proxy.log")
_worker: int | None = None
_output: Output | None = None


def configure(plan: LogPlan, *, worker: int | None = None) -> None:
    """Set up structlog for the process.

    Args:
        plan: the selection and the format of log lines.
        worker: the number of this worker process, for every line; None with a single process.
    """
    global _output, _worker
    _worker = worker
    if _output is not None:
        _output.close()
    _output = Output(sys.stderr, _report_dropped)
    structlog.configure(
        processors=_processors(plan),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=partial(_LineLogger, _output),
        cache_logger_on_first_use=True,
    )


def change(plan: LogPlan) -> None:
    """Apply a changed plan after `configure`. Loggers keep their list of processors, so this list is changed in place."""
    structlog.get_config()["processors"][:] = _processors(plan)


def _processors(plan: LogPlan) -> list[structlog.typing.Processor]:
    terminal = Output(sys.stderr).isatty()
    style = plan.format
    if style is None:
        style = "text" if terminal else "json"
    text = style == "text"
    renderer: structlog.typing.Processor = TextRenderer(terminal=terminal) if text else structlog.processors.JSONRenderer()
    return [
        _OnlyFrom(plan.level),
        *([] if _worker is None else [_name_worker(_worker)]),
        structlog.processors.add_log_level,
        classes.processor(plan.quiet),
        limit(REPEATS),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # a plain traceback: local variables contain keys and application data
        renderer,
    ]


class _OnlyFrom:
    """The step of structlog's chain that drops lines below a level."""

    def __init__(self, level: str) -> None:
        self.hidden: Final = LEVELS[: LEVELS.index(level)]

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in self.hidden:
            raise structlog.DropEvent
        return event


def is_hidden(level: str) -> bool:
    """Whether lines of this level are dropped. A caller with many such lines can then skip making them."""
    first = structlog.get_config()["processors"][0]
    return isinstance(first, _OnlyFrom) and level in first.hidden


class _LineLogger:
    """Writes each line with one write, because worker processes share the file.  structlog's own WriteLogger holds a lock during
    a write. The report of dropped lines is logged inside a write, so it would wait for this lock for ever.
    """

    def __init__(self, output: Output, *_name: str) -> None:
        self._output = output

    def msg(self, message: str) -> None:
        self._output.write(message + "\n")

    debug = info = warning = error = msg


def _report_dropped(lines: int) -> None:
    _log.warning(
        "log lines dropped",
        lines=lines,
        why="the reader of the log stood still",
        remedy="look at what reads this log; connections do not wait for it",
    )


def dropped_lines() -> int:
    """The number of log lines that could not be written without waiting, since `configure`."""
    return _output.dropped if _output is not None else 0


def _name_worker(worker: int) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker
        return event

    return add
