"""Results and durations of the steps of a connection: handshakes and dials."""

from __future__ import annotations

import bisect
import collections
import time
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final

from stcp_proxy.counters.merging import NESTED, SUM, SUM_BUCKETS, SUM_EACH
from stcp_proxy.errors import OverLimit, StcpError, TargetError

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of a histogram of durations, in seconds."""


@dataclass(slots=True)
class Durations:
    """A histogram of durations.

    Attributes:
        buckets: observations for each of `BOUNDS`, and those above the last; not cumulative.
        seconds: the sum of the durations.
    """

    buckets: Annotated[list[int], SUM_BUCKETS] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: Annotated[float, SUM] = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class Steps:
    """Results and durations of one kind of step.

    Attributes:
        results: counts by label: ``ok``, or the reason of a failure.
        durations: of the steps that succeeded.
    """

    failures: ClassVar[tuple[type[StcpError], ...]] = (StcpError,)
    """The errors that are a failure of this step; others that pass through it are not counted."""

    results: Annotated[dict[str, int], SUM_EACH] = field(default_factory=lambda: collections.Counter(ok=0))
    durations: Annotated[Durations, NESTED] = field(default_factory=Durations)

    def step(self) -> _Step:
        """Count and time what happens inside of this context manager. A cancelled step is not counted."""
        return _Step(self)

    def end(self, seconds: float, exc: BaseException | None) -> None:
        """Count a step that has ended, with an exception or without."""
        if exc is None:
            self.results["ok"] += 1
            self.durations.observe(seconds)
        elif isinstance(exc, self.failures) and not exc.judgement.is_check:
            self.results[exc.label] = self.results.get(exc.label, 0) + 1


class Handshakes(Steps):
    """Handshakes with peers."""

    __slots__ = ()


class Dials(Steps):
    """Connection attempts to a target or a peer."""

    __slots__ = ()
    failures: ClassVar = (TargetError, OverLimit)


class _Step:
    """One step while it lasts."""

    __slots__ = ("_started", "_steps")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        self._steps.end(time.monotonic() - self._started, exc)
