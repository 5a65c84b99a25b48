"""The result of one check."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    """It works, but not as well as it could."""
    FAIL = "fail"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: its severity.
        subject: what was checked.
        what: what was found, and why where that is known.
        remedy: what to do about it; empty where nothing is wrong.
    """

    level: Level
    subject: str
    what: str
    remedy: str = ""
