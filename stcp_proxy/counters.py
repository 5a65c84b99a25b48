"""What a tunnel has done, counted: the numbers behind status and metrics.

A few additions for each connection, none for a byte. All of it happens in Trio's thread.
"""

from __future__ import annotations

import bisect
import collections
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import OverLimit, StcpError, TargetError
from stcp_proxy.relay.engine import EndReason

UNKNOWN: Final = "(unknown)"
"""Whoever has not proved to be a peer of the configuration: one name for all of them."""
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of a duration, seconds."""
_KEPT: Final = 50
_WORDS: Final = 4000
"""Characters kept of what a reload has changed."""


class Durations:
    """A histogram of durations.

    Attributes:
        buckets: observations for each of `BOUNDS`, and those above the last; not cumulative.
        seconds: their sum.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class Steps:
    """Handshakes or dials: how they went, and how long the good ones took.

    Args:
        failures: the errors that are this step's own; others that come through it are not counted.

    Attributes:
        results: by label: ``ok``, or why not.
        durations: of those that went well.
    """

    __slots__ = ("_failures", "durations", "results")

    def __init__(self, *failures: type[StcpError]) -> None:
        self._failures = failures
        self.results: Final[collections.Counter[str]] = collections.Counter(ok=0)
        self.durations: Final = Durations()

    def step(self) -> _Step:
        """Count and time what happens inside. A cancelled step is not counted."""
        return _Step(self)

    def end(self, seconds: float, exc: BaseException | None) -> None:
        """A step has ended, with an exception or without."""
        if exc is None:
            self.results["ok"] += 1
            self.durations.observe(seconds)
        elif isinstance(exc, self._failures):
            self.results[exc.label] += 1


class _Step:
    """One of them, while it lasts."""

    __slots__ = ("_started", "_steps")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        self._steps.end(time.monotonic() - self._started, exc)


@dataclass(slots=True)
class Refusal:
    """Connections that did not come to be relayed, for one reason, from one host.

    Attributes:
        at: of the last one, seconds since 1970.
        client: address of whoever connected last.
        peer: its configured name; empty where it has proved nothing.
        reason: the label.
        why: in a sentence.
        remedy: what to do about it; may be empty.
        count: how many they were.
    """

    at: float
    client: str
    peer: str
    reason: str
    why: str
    remedy: str
    count: int = 1


class Refusals:
    """The last refusals: those that repeat are one with a count, so that a scanner does not push out what matters."""

    def __init__(self) -> None:
        self._kept: collections.OrderedDict[tuple[str, str, str], Refusal] = collections.OrderedDict()

    def add(self, refusal: Refusal) -> None:
        """Note one; the oldest kind goes when there are too many."""
        kind = (refusal.client.rpartition(":")[0], refusal.reason, refusal.why)
        before = self._kept.pop(kind, None)
        if before is not None:
            refusal.count += before.count
        self._kept[kind] = refusal
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def __iter__(self) -> Iterator[Refusal]:
        """The latest first."""
        return reversed(self._kept.values())


@dataclass(slots=True)
class KeyUse:
    """What has been seen of a pair of keys, this side's and a peer's.

    Attributes:
        last: when the peer last proved itself by them, seconds since 1970; None is never.
        total: connections so far.
    """

    last: float | None = None
    total: int = 0


@dataclass(slots=True)
class Reloads:
    """Readings of the configuration while the process runs.

    Attributes:
        applied: how many were applied.
        failed: how many were not, and left everything as it was.
        at: of the last one, seconds since 1970; None is none yet.
        ok: whether that one was applied.
        what: what it has changed, in lines, or why it was not applied.
    """

    applied: int = 0
    failed: int = 0
    at: float | None = None
    ok: bool = True
    what: str = ""

    def add(self, *, ok: bool, what: str) -> None:
        """Count one that has just been done."""
        self.at, self.ok, self.what = time.time(), ok, what[:_WORDS]
        if ok:
            self.applied += 1
        else:
            self.failed += 1


class Ledger:
    """The counts of one tunnel, since the process began.

    Attributes:
        accepted: connections so far.
        ended: relayed connections that have ended, by peer, engine and reason.
        refused: connections that did not come to be relayed, by peer and label.
        bytes_to_wire, bytes_to_plain: of the connections that have ended.
        handshakes, dials: how they went.
        limits: how often each limit made newcomers wait.
        refusals: the last ones.
        pairs: use of keys, by this side's and the peer's, 32 bytes each.
    """

    __slots__ = (
        "accepted",
        "bytes_to_plain",
        "bytes_to_wire",
        "dials",
        "ended",
        "handshakes",
        "limits",
        "pairs",
        "refusals",
        "refused",
    )

    def __init__(self) -> None:
        self.accepted = 0
        self.ended: Final[collections.Counter[tuple[str, str, EndReason]]] = collections.Counter()
        self.refused: Final[collections.Counter[tuple[str, str]]] = collections.Counter()
        self.bytes_to_wire = self.bytes_to_plain = 0
        self.handshakes: Final = Steps(StcpError)
        self.dials: Final = Steps(TargetError, OverLimit)
        self.limits: Final[collections.Counter[str]] = collections.Counter(max_connections=0, max_handshakes=0, descriptors=0)
        self.refusals: Final = Refusals()
        self.pairs: Final[dict[tuple[bytes, bytes], KeyUse]] = {}

    @property
    def served(self) -> int:
        """Relayed connections that have ended."""
        return self.ended.total()

    def ended_by(self) -> Mapping[str, int]:
        """The same by reason alone."""
        found: collections.Counter[str] = collections.Counter()
        for (_, _, reason), count in self.ended.items():
            found[reason.value] += count
        return found

    def refused_by(self) -> Mapping[str, int]:
        """Connections that did not come to be relayed, by label alone."""
        found: collections.Counter[str] = collections.Counter()
        for (_, label), count in self.refused.items():
            found[label] += count
        return found
