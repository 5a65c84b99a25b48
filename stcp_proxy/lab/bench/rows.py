"""The rows of the benchmark: the measurements through each pair."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import ConfigError

ROUND_TRIP: Final = 0.02
"""Seconds for a round trip on the path of the row "first answer"."""


class Kind(enum.StrEnum):
    """The kind of load of a row."""

    ROUND_TRIPS = "round trips"
    BULK = "bulk"
    NEW_CONNECTIONS = "new connections"
    FIRST_ANSWER = "first answer"
    FAIRNESS = "fairness"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        name: its name for `--rows`.
        title: its name in tables.
        connections: connections or clients at a time; for fairness, the number of small ones beside one bulk connection.
        size: bytes of a message in each direction.
    """

    name: str
    title: str
    kind: Kind
    connections: int
    size: int = 0

    @property
    def unit(self) -> str:
        """Unit of the row's rate."""
        units = {Kind.BULK: "MB/s", Kind.NEW_CONNECTIONS: "conn/s", Kind.FIRST_ANSWER: "conn/s", Kind.MEMORY: "KiB"}
        return units.get(self.kind, "rt/s")

    @property
    def cpu_unit(self) -> str:
        """Unit of the row's processor time, as in `Figures.cpu_per_operation`."""
        opened = "CPU s per 1,000"
        units = {Kind.BULK: "CPU s per GB", Kind.NEW_CONNECTIONS: opened, Kind.FIRST_ANSWER: opened}
        return units.get(self.kind, "CPU s per 100,000")


OPENING: Final = frozenset({Kind.NEW_CONNECTIONS, Kind.FIRST_ANSWER})
"""Kinds of rows that measure the opening of connections."""

ROWS: Final = (
    Row("rt-256x50", "256 B × 50", Kind.ROUND_TRIPS, 50, 256),
    Row("rt-4kx20", "4 KiB × 20", Kind.ROUND_TRIPS, 20, 4 << 10),
    Row("rt-16kx10", "16 KiB × 10", Kind.ROUND_TRIPS, 10, 16 << 10),
    Row("rt-64kx5", "64 KiB × 5", Kind.ROUND_TRIPS, 5, 64 << 10),
    Row("rt-256x1", "256 B × 1", Kind.ROUND_TRIPS, 1, 256),
    Row("bulk-1", "bulk × 1", Kind.BULK, 1),
    Row("bulk-4", "bulk × 4", Kind.BULK, 4),
    Row("conn-1", "new connections × 1", Kind.NEW_CONNECTIONS, 1, 256),
    Row("conn-16", "new connections × 16", Kind.NEW_CONNECTIONS, 16, 256),
    Row("first-20ms", "first answer, path of 20 ms", Kind.FIRST_ANSWER, 1, 256),
    Row("fair", "256 B × 50 beside bulk × 1", Kind.FAIRNESS, 50, 256),
    Row("memory", "resident memory", Kind.MEMORY, 2000),
)


def choose(names: Iterable[str]) -> tuple[Row, ...]:
    """Rows by name or by the beginning of a name (`rt`, `bulk`, `conn`). Without names: all rows.

    Raises:
        ConfigError: a name matches no row.
    """
    names = tuple(names)
    for name in names:
        if not any(row.name.startswith(name) for row in ROWS):
            raise ConfigError(
                f"the name of no row begins with {name!r}", remedy=f"choose from {', '.join(row.name for row in ROWS)}"
            )
    return tuple(row for row in ROWS if not names or any(row.name.startswith(name) for name in names))
