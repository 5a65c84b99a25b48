"""One thing that was looked at."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARN = "warn"
    """It works, and not as well as it could."""
    FAIL = "fail"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes:
        level: whether it is well.
        subject: what was looked at.
        what: what was found, and why where that is known.
        remedy: what to do about it; empty where all is well.
    """

    level: Level
    subject: str
    what: str
    remedy: str = ""
