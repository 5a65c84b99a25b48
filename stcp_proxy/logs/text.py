"""Log lines as text: what happened, then tunnel, peer, why and remedy, then the rest.

In a file or a pipe an event is one line. On a terminal an event that is wider than the terminal is wrapped between words, with an
indent: why and remedy begin lines of their own. Each value is escaped, so foreign text cannot begin a line or move the cursor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from stcp_proxy.redact import printable

_FIRST: Final = ("tunnel", "peer", "why", "remedy")
_SENTENCES: Final = ("why", "remedy")
_INDENT: Final = " " * 4
_LEVEL_WIDTH: Final = len("warning")
_NARROWEST: Final = 40
_COLOURS: Final = {"warning": "\x1b[33m", "error": "\x1b[31;1m", "critical": "\x1b[31;1m"}
_BOLD: Final = "\x1b[1m"
_QUIET: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


class TextRenderer:
    """The last step of structlog's chain for `log.format: text`.

    Args:
        terminal: whether the lines go to a terminal.
        width: returns the columns of the terminal.
        colours: whether they may have colours.
    """

    def __init__(self, *, terminal: bool, width: Callable[[], int] | None = None, colours: bool | None = None) -> None:
        self._terminal = terminal
        self._width = width or columns
        self._colours = terminal and not os.environ.get("NO_COLOR") if colours is None else colours

    def __call__(self, _logger: object, _method: str, event: structlog.typing.EventDict) -> str:
        time, level = str(event.pop("timestamp", "")), str(event.pop("level", ""))
        what, trace = printable(str(event.pop("event", ""))), event.pop("exception", None)
        if self._terminal and len(time) > len("2026-01-01T00:00:00"):
            time = f"{time[11:19]}Z"  # a terminal shows the last minutes; the date costs a fifth of a narrow one
        fields: dict[str, object] = {name: event[name] for name in _FIRST if name in event}
        fields.update(event)
        head = f"{time} {level:{_LEVEL_WIDTH}} {what}".lstrip()
        line = " ".join([head, *(f"{name}={_value(value)}" for name, value in fields.items())])
        width = max(_NARROWEST, self._width()) if self._terminal else 0
        if self._terminal and len(line) > width:
            line = "\n".join(_wrapped(head, fields, width))
        if self._colours:
            line = line.replace(head, self._coloured(time, level, what), 1)
        return line if trace is None else f"{line}\n{trace}"

    def _coloured(self, time: str, level: str, what: str) -> str:
        colour = _COLOURS.get(level, "")
        return f"{_QUIET}{time}{_PLAIN} {colour}{level:{_LEVEL_WIDTH}}{_PLAIN if colour else ''} {_BOLD}{what}{_PLAIN}"


def _value(value: object) -> str:
    """A value on one line: quoted where it has spaces, quotes or control characters."""
    text = value if isinstance(value, str) else repr(value)
    if not isinstance(value, str) or (text and text.isprintable() and not set(text) & set(" '\"=")):
        return printable(text)
    return repr(text)


def _wrapped(head: str, fields: dict[str, object], width: int) -> Iterator[str]:
    """The lines of an event on a narrow terminal."""
    names = [name for name in ("tunnel", "peer") if name in fields]
    yield from _filled([*head.split(" "), *(f"{name}={_value(fields[name])}" for name in names)], width, "")
    for name in _SENTENCES:
        if fields.get(name):
            yield from _filled([f"{name}:", *printable(str(fields[name])).split(" ")], width, _INDENT)
    rest = [f"{name}={_value(value)}" for name, value in fields.items() if name not in _FIRST]
    yield from _filled(rest, width, _INDENT)


def _filled(words: list[str], width: int, indent: str) -> Iterator[str]:
    """Words in lines of at most `width` columns; further lines have an indent. A word that is longer has a line of its own."""
    line = indent
    empty = True
    for word in words:
        if not empty and len(line) + 1 + len(word) > width:
            yield line
            line, empty = _INDENT + (_INDENT if indent else ""), True
        line += word if empty else f" {word}"
        empty = False
    if not empty:
        yield line


def columns() -> int:
    """The columns of the terminal on standard error: COLUMNS, or what the terminal says."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 80
