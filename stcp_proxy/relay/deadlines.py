"""Deadlines of many items, most of which are moved or removed before they pass.

This is a heap with lazy deletion: a moved or removed deadline leaves its old entry in the heap. The heap is rebuilt when more
than half of its entries are old, so its size stays proportional to the number of deadlines in force.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

_T = TypeVar("_T")
_SLACK = 64


class Timed(Protocol):
    """What has a deadline."""

    def on_deadline(self) -> None:
        """The deadline set last has passed."""

    def fail(self, exc: BaseException) -> None:
        """End what a bug in one of its steps has broken."""


class Deadlines(Generic[_T]):
    """At most one deadline for each item. Items are compared by identity. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _T]] = []
        self.waiting: dict[int, tuple[float, int, _T]] = {}
        """The deadlines in force."""
        self._serial = 0

    def __len__(self) -> int:
        return len(self.waiting)

    def set(self, item: _T, when: float) -> None:
        """Set the deadline of `item` to `when`. Replaces an earlier one."""
        self._serial += 1
        entry = (when, self._serial, item)
        self.waiting[id(item)] = entry
        heapq.heappush(self._heap, entry)
        self._compact()

    def discard(self, item: _T) -> None:
        """Remove the deadline of `item`, if it has one."""
        if self.waiting.pop(id(item), None) is not None:
            self._compact()

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap and self.waiting.get(id(heap[0][2])) is not heap[0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expired(self, now: float) -> Iterator[_T]:
        """Remove and yield every item whose deadline is at or before `now`, earliest first."""
        while (when := self.next()) is not None and when <= now:
            item = heapq.heappop(self._heap)[2]
            del self.waiting[id(item)]
            yield item

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self.waiting) + _SLACK:
            self._heap = list(self.waiting.values())
            heapq.heapify(self._heap)
