"""The verdict on a terminal: what is wrong, since when, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.padding import Padding
from rich.text import Text

from stcp_proxy.admin.terminal_text import clock, span
from stcp_proxy.admin.verdict_schema import Fault, Level, Verdict
from stcp_proxy.redact import printable

STYLES: Final[dict[Level, str]] = {"ok": "green", "note": "green", "warn": "yellow", "bad": "bold red"}
_SIGNS: Final[dict[Level, str]] = {"ok": "✓", "note": "·", "warn": "▲", "bad": "■"}
_QUIET: Final = "dim"


def lines_of(verdict: Verdict, now: float, indent: int) -> Iterator[Text | Padding]:
    """The headline, and for each fault its sentence, its key and its remedy.

    Args:
        verdict: the verdict; one without a headline has no lines.
        now: the time of the status, seconds since 1970.
        indent: columns before everything below the headline.
    """
    if not verdict.headline:
        return
    yield Text(f"{_SIGNS[verdict.level]} {printable(verdict.headline)}", style=STYLES[verdict.level])
    for fault in verdict.faults:
        yield Padding(_fault(fault, now), (0, 0, 0, indent), expand=False)
    if verdict.more:
        yield Padding(
            Text(f"and {verdict.more:,} more; --json has the tunnels with their states", style=_QUIET), (0, 0, 0, indent)
        )


def _fault(fault: Fault, now: float) -> Text:
    over = fault.until is not None
    text = Text("".join(map(printable, fault.what)), style=_QUIET if over or fault.level == "note" else "", overflow="fold")
    text.append(f" ({when(fault, now)})", style=_QUIET)
    if fault.public_key and not over:
        text.append(f"\n{printable(fault.public_key)}")
    if fault.remedy and not over:
        text.append(f"\n→ {printable(fault.remedy.replace('`', ''))}", style="not dim")
    return text


def when(fault: Fault, now: float) -> str:
    """Since when a fault lasts, or when it was over. Times are in UTC."""
    since = fault.since if fault.since is not None else now
    again = f", {fault.times} times since the start" if fault.times > 1 else ""
    if fault.until is not None:
        return f"over since {clock(fault.until, now)}, lasted {span(fault.until - since)}{again}"
    last = f", last {span(now - fault.last)} ago" if fault.last is not None and fault.last > since else ""
    return f"since {clock(since, now)}, {span(now - since)}{last}{again}"
