"""Rates by key: a token bucket for each, in bounded memory.

A bucket gains `rate` tokens a second, up to `burst`. When there are too many buckets, the one that was used least recently is
forgotten; its key begins with a full bucket again.
"""

from __future__ import annotations

import collections
from typing import Final

MOST: Final = 4096
"""Most buckets that are kept."""


class TokenBuckets:
    """Buckets by key. The caller gives the time, in seconds on any clock that never goes back.

    Args:
        rate: tokens a second.
        burst: the tokens of a full bucket.

    Attributes:
        rate, burst: as above; a change counts from the next use of a bucket on.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._buckets: Final[collections.OrderedDict[str, tuple[float, float]]] = collections.OrderedDict()
        """For each key, the number of tokens and the time of the last use."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> bool:
        """Take one token. Returns whether the bucket had one."""
        left = self._left(key, now)
        allowed = left >= 1.0
        self._keep(key, left - 1.0 if allowed else left, now)
        return allowed

    def charge(self, key: str, now: float, *, debt: float) -> float:
        """Take one token, also from an empty bucket. Returns the tokens that are left: at least `-debt`."""
        left = max(self._left(key, now) - 1.0, -debt)
        self._keep(key, left, now)
        return left

    def left(self, key: str, now: float) -> float:
        """The tokens of a bucket now; negative after `charge`. A key without a bucket has a full one."""
        left, at = self._buckets.get(key, (self.burst, now))
        return min(self.burst, left + (now - at) * self.rate)

    def is_empty(self, key: str, now: float) -> bool:
        """Whether a bucket has no token now."""
        return self.left(key, now) < 1.0

    def _left(self, key: str, now: float) -> float:
        """`left`, of a bucket that is used now."""
        left = self.left(key, now)
        self._buckets.pop(key, None)
        return left

    def _keep(self, key: str, left: float, now: float) -> None:
        self._buckets[key] = (left, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
