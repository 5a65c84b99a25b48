"""The console for tables: a terminal, a pipe or a file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console

WIDTH: Final = 160
"""Columns of a table that goes into a file or a pipe, where COLUMNS says nothing."""


def console() -> Console:
    """A console as wide as the terminal, or as COLUMNS says. It has no colours where NO_COLOR is set, nor outside a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS") else WIDTH, highlight=False)
