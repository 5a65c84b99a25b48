"""Plots of a run: one panel for each row, with one bar for each pair; lines show how cost grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stcp_proxy.lab.bench.cells import shown_rate
from stcp_proxy.lab.bench.figures import Figures, p99, rate
from stcp_proxy.lab.bench.peer import Peer, Role
from stcp_proxy.lab.bench.rows import Kind, Row
from stcp_proxy.lab.loadgen import LabError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {Role.OURS: "#0b6e4f", Role.TLS: "#5b7db1", Role.PEER: "#8da3c4", Role.YARDSTICK: "#c3c7cc"}
Value = Callable[[Row, Peer], float | None]
"""The length of a bar; None without a measurement."""
Unit = Callable[[Row], str]
"""The unit of a row's axis."""


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as exc:
        raise LabError("the report's plots need matplotlib", remedy="install stcp-proxy[lab]") from exc
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw(figures: Figures, folder: Path) -> list[Path]:
    """Draw the available results: rates, p99, CPU. Returns the files in the order of the report.

    Raises:
        LabError: matplotlib is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in figures.rows if row.kind is not Kind.MEMORY]

    def of_rate(row: Row, peer: Peer) -> float | None:
        return shown_rate(row, figures.median(row.name, peer.name, rate))

    def of_p99(row: Row, peer: Peer) -> float | None:
        value = figures.median(row.name, peer.name, p99)
        return None if value is None else value / 1e3

    def of_cpu(row: Row, peer: Peer) -> float | None:
        return figures.cpu_per_operation(row, peer.name)

    timed = [row for row in rows if row.kind is not Kind.BULK]
    costed = [row for row in rows if row.kind is not Kind.FAIRNESS]
    tunnels = [peer for peer in figures.peers if peer.role is not Role.YARDSTICK]
    proxies = [peer for peer in figures.peers if peer.set_up]
    every = tunnels + [peer for peer in proxies if peer not in tunnels]
    cpu = "CPU time of a pair for the same work (less is better)"
    drawn = [
        _panels(folder / "rates.png", "Rate (more is better)", rows, every, of_rate, lambda row: row.unit),
        _panels(folder / "p99.png", "p99 latency (less is better)", timed, proxies, of_p99, lambda _: "ms"),
        _panels(folder / "cpu.png", cpu, costed, proxies, of_cpu, lambda row: row.cpu_unit),
    ]
    return [path for path in drawn if path is not None]


def _panels(path: Path, title: str, rows: Sequence[Row], peers: Sequence[Peer], value: Value, unit: Unit) -> Path | None:
    if not rows or not peers:
        return None
    plt, columns = _pyplot(), min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.6 * columns, 0.6 + lines * (0.85 + 0.24 * len(peers))), squeeze=False)
    flat = list(axes.flat)
    for axis, row in zip(flat, rows, strict=False):
        _bars(axis, row, peers, value)
        axis.set_xlabel(unit(row), fontsize=8)
    for axis in flat[len(rows) :]:
        axis.set_visible(False)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _bars(axis: Axes, row: Row, peers: Sequence[Peer], value: Value) -> None:
    values = [value(row, peer) or 0.0 for peer in peers]
    bars = axis.barh([peer.name for peer in peers], values, color=[_COLOURS[peer.role] for peer in peers])
    axis.bar_label(bars, labels=[_short(v) for v in values], padding=2, fontsize=7)
    axis.invert_yaxis()
    axis.margins(x=0.22)
    axis.set_title(f"{row.title}", fontsize=9)
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(_pyplot().MaxNLocator(3))
    axis.spines[["top", "right"]].set_visible(False)


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def lines(
    path: Path, title: str, axis_names: tuple[str, str], series: dict[str, list[tuple[float, float]]], *, log: bool = True
) -> Path:
    """Draw a plot with one line for each pair.

    Args:
        path: the PNG file to write.
        title: stands above the plot.
        axis_names: the names of the x axis and the y axis.
        series: points by the name of the pair.
        log: whether both axes are logarithmic.

    Returns:
        The file.
    """
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6.4, 4))
    for name, points in series.items():
        axis.plot(*zip(*points, strict=True), marker="o" if log else None, markersize=3, label=name)
    if log:
        axis.set(xscale="log", yscale="log")
    else:
        axis.set_ylim(bottom=0)
    axis.set(title=title, xlabel=axis_names[0], ylabel=axis_names[1])
    axis.grid(visible=True, alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
