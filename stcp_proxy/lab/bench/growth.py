"""How cost grows: with connections from 1 to 5,000, and with the payload from 64 B to 1 MiB."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stcp_proxy.lab.bench import plots
from stcp_proxy.lab.bench.cells import Table, milliseconds, number
from stcp_proxy.lab.bench.figures import Figures, p99, rate
from stcp_proxy.lab.bench.rows import Kind, Row

CONNECTIONS: Final = (1, 5, 20, 50, 200, 1000, 5000)
SIZES: Final = (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
PEERS: Final = ("stcp", "stcp-kernel", "haproxy", "plain")
_BY_CONNECTIONS: Final = tuple(Row(f"n-{n}", f"256 B × {n:,}", Kind.ROUND_TRIPS, n, 256) for n in CONNECTIONS)
_BY_SIZE: Final = tuple(
    Row(f"s-{size}", f"{size} B × 10" if size < 1024 else f"{size >> 10} KiB × 10", Kind.ROUND_TRIPS, 10, size) for size in SIZES
)
ROWS: Final = _BY_CONNECTIONS + _BY_SIZE


def table(figures: Figures) -> Table:
    """Rate, p99 and CPU time of each pair for each step."""
    head = [""]
    for peer in figures.peers:
        head += [f"{peer.name}: rt/s", "p99 ms", "CPU µs/rt"]
    lines = []
    for row in figures.rows:
        cells = [row.title]
        for peer in figures.peers:
            cost = figures.cpu_per_operation(row, peer.name)
            cells.append(number(figures.median(row.name, peer.name, rate)))
            cells.append(milliseconds(figures.median(row.name, peer.name, p99)))
            cells.append(number(None if cost is None else cost * 10))  # CPU s per 100,000 is 10 µs each
        lines.append(cells)
    return Table("How cost grows with connections and with payload", head, lines)


def draw(figures: Figures, folder: Path) -> list[Path]:
    """CPU time of a round trip over connections, and over payload.

    Raises:
        LabError: matplotlib is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, label, rows in (("connections", "connections", _BY_CONNECTIONS), ("payload", "bytes of a message", _BY_SIZE)):
        series = {}
        for peer in figures.peers:
            points = []
            for row in rows:
                cost = figures.cpu_per_operation(row, peer.name)
                if cost:
                    points.append((float(row.connections if rows is _BY_CONNECTIONS else row.size), cost * 10))
            if points:
                series[peer.name] = points
        title = f"CPU time of a round trip over {label}"
        drawn.append(plots.lines(folder / f"{name}.png", title, (label, "µs, both proxies"), series))
    return drawn
