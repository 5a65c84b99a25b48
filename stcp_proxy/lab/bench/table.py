"""The benchmark on a terminal: tables, and a progress display while it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import rich.box
import rich.table
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stcp_proxy.lab.bench.cells import Table
from stcp_proxy.lab.bench.measure import Progress as Step

WIDE: Final = 220
"""Columns of the output to a file or a pipe."""
_COLOURS: Final = {"met": "green", "missed": "red"}


def standard_output() -> Console:
    """The console for standard output. For a file or a pipe, it is wide enough for every table."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def show(console: Console, table: Table) -> None:
    """Print a table. The last cell of a line gives its colour: "met" is green, "missed" is red."""
    drawn = rich.table.Table(
        title=table.title, box=rich.box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )
    for position, name in enumerate(table.head):
        drawn.add_column(name, justify="left" if position == 0 else "right", no_wrap=position == 0)
    for line in table.lines:
        drawn.add_row(*line, style=_COLOURS.get(line[-1]))
    console.print(drawn)


@contextmanager
def progress(console: Console, steps: int) -> Iterator[Step]:
    """A bar with the current step and the remaining time; when the output is not a terminal, one line for each step."""
    if not console.is_terminal:
        yield lambda words: console.print(words, highlight=False)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps, completed=-1)

        def step(words: str) -> None:
            bar.update(task, advance=0 if words.startswith("starting") else 1, description=words)

        yield step
