"""`stcp-proxy status --watch`: a status again and again, on a terminal in place, in a pipe one below the other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from stcp_proxy.admin.client import AdminError
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.admin.terminal_layout import Limits
from stcp_proxy.admin.terminal_table import View
from stcp_proxy.admin.terminal_text import clock
from stcp_proxy.admin.terminal_verdict import STYLES

_OTHER_LINES: Final = 16
"""Lines of a screen that are left for what is not a tunnel."""
_LINES_OF_TUNNEL: Final = 3
_FEWEST: Final = 2


def watch(
    console: Console,
    look: Callable[[], Status],
    seconds: float,
    *,
    tunnel: str = "",
    limits: Limits | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a proxy until interrupted. While the proxy does not answer, wait for it.

    Args:
        console: the terminal, the pipe or the file.
        look: returns the current status.
        seconds: the time between two calls.
        tunnel: show this tunnel alone; empty for all.
        limits: how much of long lists is shown. [default: what fits the screen]
        sleep: waits.
    """
    found: RenderableType
    before: Status | None = None
    with Live(console=console, screen=True, auto_refresh=False) if console.is_terminal else contextlib.nullcontext() as live:
        while True:
            try:
                now = look()
            except AdminError as exc:
                before, found = None, Text(str(exc), style=STYLES["bad"])
            else:
                known = before if before is not None and before.process.started == now.process.started else None
                found = View(now, known, limits or _fitting(console), tunnel, busiest=True)
                before = now
            if live is not None:
                live.update(found, refresh=True)
            else:
                console.print(Text(f"-- {clock(time.time(), time.time())}"), found, "", sep="\n")
            sleep(seconds)


def _fitting(console: Console) -> Limits:
    """As much as a screen holds. The list of keys is left out: it changes seldom."""
    if not console.is_terminal:
        return Limits(keys=0)
    tunnels = max(_FEWEST, (console.height - _OTHER_LINES) // _LINES_OF_TUNNEL)
    return Limits(tunnels=tunnels, keys=0, refusals=_FEWEST)
