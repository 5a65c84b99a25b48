"""The layout of `stcp-proxy status`: tables for wide terminals, entries of two lines for narrow ones, shortened lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from stcp_proxy.redact import printable

INDENT: Final = 4
QUIET: Final = "dim"
_SHORT_NAME: Final = 24
_MAY_GO: Final = {"yes": "yes", "no": "no", "unknown": "not known"}


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of long lists is shown; the rest is counted.

    Attributes:
        tunnels, keys, refusals: entries of these tables; `keys` holds for certificates too.
        names: addresses and peers of one tunnel, each.
    """

    tunnels: int = 20
    keys: int = 5
    refusals: int = 5
    names: int = 3


_EVERYTHING: Final = 1 << 30
DEFAULT: Final = Limits()
ALL: Final = Limits(_EVERYTHING, _EVERYTHING, _EVERYTHING, _EVERYTHING)


class Flow:
    """Parts in lines: a part that does not fit begins the next line, with an indent. A part longer than a line is wrapped.

    Args:
        parts: at least one; empty ones are left out.
        width: columns.
        first, later: columns before the first line and before further lines.
    """

    def __init__(self, parts: Iterable[str | Text], width: int, *, first: int = 0, later: int = INDENT) -> None:
        self.text = Text(" " * first, overflow="fold")
        self._width, self._later = width, later
        self._used, self._empty = first, True
        for each in parts:
            part = each if isinstance(each, Text) else Text(each)
            if part.cell_len > width - later:
                for number, word in enumerate(part.split(" ")):
                    self._add(word, gap=1 if number else 2)
            elif part.plain:
                self._add(part, gap=2)

    def _add(self, part: Text, *, gap: int) -> None:
        if self._empty:
            gap = 0
        elif self._used + gap + part.cell_len > self._width:
            self.text.append("\n" + " " * self._later)
            self._used, gap = self._later, 0
        self.text.append(" " * gap)
        self.text.append_text(part)
        self._used += gap + part.cell_len
        self._empty = False


def narrow_entry(first: Iterable[str | Text], *further: Iterable[str | Text], width: int) -> Text:
    """An entry of a narrow table: its first line, and further ones with an indent."""
    lines = [Flow(first, width).text, *(Flow(each, width, first=INDENT, later=INDENT).text for each in further)]
    return Text("\n").join(lines)


def new_table(*columns: str) -> Table:
    """A table without lines. A column name that begins with > marks a column of numbers, with = a column without line breaks."""
    table = Table(box=None, pad_edge=False, header_style=QUIET)
    for name in columns:
        number = name.startswith(">")
        whole = number or name.startswith("=")
        table.add_column(name.lstrip(">="), justify="right" if number else "left", no_wrap=whole, overflow="fold")
    return table


def names_column(title: str, names: Iterable[str]) -> str:
    """The column of some names for `new_table`: other columns give way to short names."""
    return f"={title}" if max(map(len, names), default=0) <= _SHORT_NAME else title


def add_row(table: Table, *cells: str | Text) -> None:
    """Add a row of plain text. Markup and terminal control characters in a cell have no effect."""
    table.add_row(*(cell if isinstance(cell, Text) else Text("\n".join(map(printable, cell.split("\n")))) for cell in cells))


def shortened(parts: Sequence[Text], most: int) -> list[Text]:
    """The first parts, and the number of the others. One part is never left out alone: its count is as long."""
    if len(parts) <= most + 1:
        return list(parts)
    return [*parts[:most], Text(f"and {len(parts) - most:,} more", style=QUIET)]


def unlisted(count: int, one: str, how: str, many: str = "") -> list[RenderableType]:
    """A line with the number of entries that a list leaves out; no line for none.

    Args:
        count: the number of these entries.
        one: a word for one of them.
        how: how to see them.
        many: a word for several. [default: `one` with an s]
    """
    if count <= 0:
        return []
    return [Text(f"and {count:,} more {one if count == 1 else many or one + 's'}: {how}", style=QUIET)]


def once(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of their first appearance."""
    return list(dict.fromkeys(names))


def names_text(names: Iterable[str], most: int, between: str = ", ") -> Text:
    """Names of others in one text, shortened to `most`."""
    return Text(between).join(shortened([Text(printable(name)) for name in once(names)], most))


def may_go_text(answer: str, why: str) -> Text:
    """Whether a key or a certificate can be removed, and the reason."""
    text = Text(_MAY_GO[answer])
    return text.append(f": {printable(why)}" if why else "", style=QUIET)
