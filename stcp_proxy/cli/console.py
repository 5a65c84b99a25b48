"""The console for tables: a terminal, a pipe or a file."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

_NAME_COLUMN: Final = re.compile(r" +\S+(?: \S+)* {2,}(?=\S)")
_INDENT: Final = 4
WIDTH: Final = 160
"""Columns of a table that goes into a file or a pipe, where COLUMNS says nothing."""


def wrapped(text: str) -> str:
    """Lines that a terminal can show without a break inside of a word: as wide as the terminal, or as COLUMNS says.

    A continued line begins below the value, where a line has a name in a column before it. In a pipe without COLUMNS, lines stay
    whole.
    """
    import shutil
    import textwrap

    if not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return text
    width = shutil.get_terminal_size().columns
    lines: list[str] = []
    for line in text.split("\n"):
        column = _NAME_COLUMN.match(line)
        fits = column is not None and max(map(len, line.split())) <= width - column.end()
        indent = " " * (column.end() if column is not None and fits else _INDENT)
        lines += textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
        ) or [""]
    return "\n".join(lines)


def console() -> Console:
    """A console as wide as the terminal, or as COLUMNS says. It has no colours where NO_COLOR is set, nor outside a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else WIDTH, highlight=False)
