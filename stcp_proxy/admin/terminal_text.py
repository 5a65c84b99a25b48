"""Figures and times in words. The dashboard (`assets/format.js`) writes them the same way: decimal units, and times in UTC as the
log has them.
"""

from __future__ import annotations

import time
from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_DAY: Final = 86400


def size(count: float) -> str:
    """Bytes, short: 12 B, 3.4 MB."""
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 99.5 else f"{count:.1f} {_UNITS[unit]}"


def span(seconds: float) -> str:
    """A duration, short: 12 s, 3 min 4 s, 2 d 5 h."""
    whole = max(0, int(seconds))
    parts = ((whole // _DAY, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or unit == "s" == parts[first][1])


def clock(at: float, now: float) -> str:
    """A time of day in UTC, with the date where it is not the day of `now`. Both are seconds since 1970."""
    form = "%H:%M:%S UTC" if at // _DAY == now // _DAY else "%Y-%m-%d %H:%M:%S UTC"
    return time.strftime(form, time.gmtime(at))


def day(at: float) -> str:
    """A day in UTC, for a time in seconds since 1970."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))
