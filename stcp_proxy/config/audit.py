"""Audit mode of an access rule: its date, and what the date means.

Until the date the rule of a listen tunnel admits peers that have authenticated and that no entry of `allow` names. From the
midnight (UTC) with which the date begins, the rule refuses them again, without a reload.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import ConfigError
from stcp_proxy.keys import PublicKey

MAX_DAYS: Final = 90
"""Days that an audit may last from the reading of the file."""
AUDITED: Final = "(audited)"
"""The label, in metrics, of every peer that only audit mode admits. One label for all, because strangers can make many keys."""
_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Audit:
    """The audit mode of one access rule.

    Attributes:
        until: its end, in unix seconds: midnight UTC.
        revoked: public keys that it never admits.
    """

    until: float
    revoked: frozenset[PublicKey] = frozenset()

    def is_on(self, now: float) -> bool:
        """Whether it admits peers.

        Args:
            now: the time, in unix seconds.
        """
        return now < self.until

    @property
    def date(self) -> str:
        """Its date, as the file has it."""
        return datetime.datetime.fromtimestamp(self.until, datetime.UTC).date().isoformat()


def midnight(text: str) -> float:
    """The beginning of a date, in unix seconds.

    Args:
        text: the date as YYYY-MM-DD.

    Raises:
        ConfigError: this is not a date.
    """
    try:
        day = datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        day = None
    if day is None or day.date().isoformat() != text:
        raise ConfigError("a date belongs here", remedy="write it as 2026-12-31") from None
    return day.timestamp()


def is_too_far(until: float, now: float) -> bool:
    """Whether an audit would end later than `MAX_DAYS` allows."""
    return until > now + MAX_DAYS * _DAY
