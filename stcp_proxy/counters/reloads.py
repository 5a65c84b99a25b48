"""The times that the configuration was read again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

_MAX_TEXT: Final = 4000
"""Characters kept of what a reload has changed."""


@dataclass(slots=True)
class Reloads:
    """Reloads while the process runs.

    Attributes:
        applied: the number that were applied.
        failed: the number that were refused, and left everything as it was.
        at: time of the last one, seconds since 1970; None before the first.
        ok: whether the last one was applied.
        what: what the last one changed, in lines, or why it was refused.
    """

    applied: int = 0
    failed: int = 0
    at: float | None = None
    ok: bool = True
    what: str = ""

    def add(self, *, ok: bool, what: str) -> None:
        """Count a reload that has just ended."""
        self.at, self.ok, self.what = time.time(), ok, what[:_MAX_TEXT]
        if ok:
            self.applied += 1
        else:
            self.failed += 1
