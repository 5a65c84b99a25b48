"""The output of the demo: at most 80 columns, and colours only on a terminal. No meaning depends on colour alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from stcp_proxy.demo.stage import DemoFailed
from stcp_proxy.demo.tap import Item, Recording

WIDTH: Final = 80
_SAMPLE: Final = 14
"""The number of bytes that are shown of each item."""
_READABLE: Final = "green"
_OPEN: Final = "cyan"
_SEALED: Final = "magenta"


class _Console(Console):
    """A console whose reader may end early, as `head` does. The demo then continues, and its status still counts."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Prints the demo, and counts the checks."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # print a replacement instead of failing at an arrow
        self.console = _Console(highlight=False, soft_wrap=False)
        self.console.width = min(WIDTH, self.console.width)
        self._scenes = 0
        self._checks = 0

    # -- parts -------------------------------------------------------------------------------------------------------------

    def title(self, text: str, picture: str) -> None:
        """Print the title and the picture."""
        self.console.print()
        self.console.print(Text(text, style="bold"))
        self.console.print()
        self._print(Text(picture, style=_OPEN))

    def scene(self, title: str) -> None:
        """Print the title of the next scene."""
        self._scenes += 1
        self.console.print()
        self.console.print(Rule(Text(f"{self._scenes}  {title}", style="bold"), align="left", style="dim"))

    def say(self, text: str) -> None:
        """Print a sentence for the reader."""
        self._print(Text(text))

    def command(self, command: str, output: str) -> None:
        """Print a command line and its output."""
        self.rows([("$", Text(command, style="bold")), ("", output)], narrow=True)

    def rows(self, rows: Iterable[tuple[str, str | Text]], *, narrow: bool = False) -> None:
        """Print rows of a name and a text."""
        grid = Table.grid(padding=(0, 1))
        grid.add_column(style="" if narrow else "bold", no_wrap=True, min_width=1 if narrow else 8)
        grid.add_column(overflow="fold")
        for who, what in rows:
            grid.add_row(who, what)
        self._print(grid)

    def check(self, truth: bool, sentence: str, *, otherwise: str = "") -> None:
        """Check a fact, and print the result.

        Raises:
            DemoFailed: the check failed; its text has `otherwise`, which describes the actual state.
        """
        if not truth:
            raise DemoFailed(f"this does not hold: {sentence}" + (f" ({otherwise})" if otherwise else ""))
        self._checks += 1
        self.rows([("✓", Text(sentence, style=_READABLE))], narrow=True)

    def figures(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print numbers in columns. The first column names them."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        table.add_column(head[0])
        for title in head[1:]:
            table.add_column(title, justify="right")
        for row in rows:
            table.add_row(*row)
        self._print(table)

    def _print(self, part: Text | Table) -> None:
        """Print one part, indented."""
        self.console.print(Padding(part, (0, 0, 0, 3), expand=False))

    # -- the wire ----------------------------------------------------------------------------------------------------------

    def side_by_side(self, recording: Recording, moments: Iterable[tuple[str, str, Sequence[Item]]]) -> None:
        """Print the application's bytes beside the bytes on the wire.

        Args:
            recording: the wire leg.
            moments: the event, its readable bytes or nothing, and the items on the wire that belong to it.
        """
        table = Table(box=box.ROUNDED, show_lines=True, padding=(0, 1), width=self.console.width)
        table.add_column("What the applications see", ratio=28, overflow="fold")
        table.add_column("What is on the wire between the proxies", ratio=44, overflow="fold")
        for who, words, items in moments:
            left = Text(who, style="dim")
            if words:
                left.append(f"\n{words}", style=f"not dim bold {_READABLE}")
            right = Text("\n").join([part for item in items for part in _wire(recording, item)])
            table.add_row(left, right)
        self.console.print(table)

    # -- the end -----------------------------------------------------------------------------------------------------------

    def finished(self, seconds: float) -> None:
        """Print that all checks passed."""
        self.console.print()
        self.console.print(Rule(style="dim"))
        self.console.print(
            Text(
                f"All {self._checks} checks hold, in {seconds:.1f} s. Every process has ended, the keys are deleted.",
                style="bold",
            )
        )
        self.console.print("For two hosts of your own: README.md, or stcp-proxy --help.")

    def stopped(self) -> None:
        """Print that a signal stopped the demo."""
        self.console.print("\nStopped. Every process has ended, the keys are deleted.")

    def failed(self, sentence: str) -> None:
        """Print that a check failed."""
        self.console.print()
        self.console.print(Text(f"The demo failed: {sentence}", style="bold red"))


def _wire(recording: Recording, item: Item) -> list[Text]:
    """Two lines for one item on the wire: its visible properties, and its first bytes."""
    arrow = "→" if item.upwards else "←"
    if item.kind is not None:
        meaning = f"type {item.kind}, length {item.size - item.header}"
    else:
        meaning = recording.suite if item.upwards else ""
    first = Text(f"{arrow} ")
    first.append(f"{item.name:<11}", style=f"bold {_OPEN}")
    first.append(f"{item.size:>6,} B  {meaning}")
    data = recording.of(item)[:_SAMPLE]
    second = Text(data[: item.header].hex(" "), style=_OPEN)
    second.append("|", style="dim")
    second.append(data[item.header :].hex(" "), style=_SEALED)
    if item.size > _SAMPLE:
        second.append("…", style=_SEALED)
    return [first, second]


def log_words(line: dict[str, Any]) -> Text:
    """A log line as text for a person: event, reason, why and remedy; then the key, or the channel id and the bytes."""
    text = Text(f"{line['event']} ")
    text.append(f"({line['reason']})", style="bold")
    if "why" in line:
        text.append(f": {line['why']}")
    if "remedy" in line:
        text.append(f"; {line['remedy']}")
    if "key" in line:
        text.append(f"\nkey {line['key']}")
    if "channel" in line:
        text.append("\nchannel ")
        text.append(line["channel"], style="bold")
    if "bytes_to_wire" in line:
        text.append(
            f", {line['bytes_to_wire']} bytes to the wire, {line['bytes_to_plain']} to the application, {line['engine']} engine"
        )
    return text
