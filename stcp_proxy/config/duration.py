"""Durations as users write them: 30s, 5m, 1h, 30d, 250ms, or a number of seconds."""

from __future__ import annotations

import math
import re
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.redact import shown

PATTERN: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d|)"
MAX_SECONDS: Final = 366 * 24 * 3600.0
_UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object, *, most: float = MAX_SECONDS) -> float:
    """Seconds, from a number or from text like 30s, 5m, 1h, 30d, 250ms.

    Args:
        value: what the user wrote.
        most: the longest allowed duration, in seconds.

    Raises:
        ConfigError: the value has a different form, is negative, or is more than `most`.
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := re.fullmatch(PATTERN, value)):
        seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 <= seconds <= most:
        raise ConfigError(f"{shown(value)} is not a time", remedy="write seconds, or a number with ms, s, m, h or d")
    return seconds


def duration_text(seconds: float) -> str:
    """The shortest text for which `parse_duration` returns this value: 30s, 15m, 1500ms."""
    for unit in ("h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"
