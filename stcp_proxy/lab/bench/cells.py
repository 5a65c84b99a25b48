"""Figures as text and as tables of text, for both the terminal and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stcp_proxy.lab.bench.figures import KIB, Figures, Target, p99, rate
from stcp_proxy.lab.bench.peer import Role
from stcp_proxy.lab.bench.rows import Kind, Row


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text: the first column is text, the others are figures."""

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


def number(value: float | None) -> str:
    """A number with at least three significant digits, and with separators between thousands."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def factor(value: float | None) -> str:
    """A ratio with two decimals."""
    return "–" if value is None else f"{value:.2f}"


def milliseconds(microseconds: float | None) -> str:
    """A latency in milliseconds."""
    return "–" if microseconds is None else f"{microseconds / 1e3:.2f}"


def shown_rate(row: Row, value: float | None) -> float | None:
    """The rate in the row's unit: MB/s for bulk."""
    return value / 1e6 if value is not None and row.kind is Kind.BULK else value


def rates(figures: Figures) -> Table:
    """Rates of all pairs, and ratios: this project to the best TLS peer and to the yardsticks, its variants to this project."""
    ours, present = figures.ours(), {peer.name for peer in figures.peers}
    yardsticks = [name for name in ("plain", "direct") if ours and name in present]
    tls = [peer for peer in figures.peers if ours and peer.role is Role.TLS]
    head = ["", "", *(peer.name for peer in figures.peers)]
    head += (
        ["÷ best TLS"] * bool(tls) + [f"÷ {name}" for name in yardsticks] + [f"{peer.name} ÷ {ours[0].name}" for peer in ours[1:]]
    )
    lines = []
    for row in (row for row in figures.rows if row.kind is not Kind.MEMORY):
        cells = [number(shown_rate(row, figures.median(row.name, peer.name, rate))) for peer in figures.peers]
        if tls:
            best = figures.best_tls(row.name)
            cells.append(f"{factor(figures.ratio(row.name, ours[0].name, best))} {best}" if best else "–")
        cells += [factor(figures.ratio(row.name, ours[0].name, name)) for name in yardsticks]
        cells += [factor(figures.ratio(row.name, peer.name, ours[0].name)) for peer in ours[1:]]
        lines.append([row.title, row.unit, *cells])
    title = "Rates: medians" + (f"; ratios of {ours[0].name}, medians of each round's" if tls or yardsticks else "")
    return Table(title, head, lines)


def latencies(figures: Figures) -> Table:
    """p99 in milliseconds. For new connections, it covers connect to echo."""
    rows = [row for row in figures.rows if row.kind not in (Kind.MEMORY, Kind.BULK)]
    ours = figures.ours()[:1] if any(peer.role is Role.TLS for peer in figures.peers) else ()
    lines = []
    for row in rows:
        cells = [milliseconds(figures.median(row.name, peer.name, p99)) for peer in figures.peers]
        for peer in ours:
            best = figures.best_tls(row.name)
            cells.append(f"{factor(figures.ratio(row.name, peer.name, best, p99))} {best}" if best else "–")
        lines.append([row.title, *cells])
    return Table("p99 latency, ms", ["", *(peer.name for peer in figures.peers), *["÷ best TLS"] * len(ours)], lines)


def first_answers(figures: Figures) -> Table:
    """Round trips of the path from connect to the first answer."""
    rows = [row for row in figures.rows if row.kind is Kind.FIRST_ANSWER]
    lines = [[row.title, *(factor(figures.round_trips(row.name, peer.name)) for peer in figures.peers)] for row in rows]
    return Table("Round trips from connect to the first answer", ["", *(peer.name for peer in figures.peers)], lines)


def cpu(figures: Figures) -> Table:
    """CPU seconds of the processes of each pair for the same work."""
    kinds = (Kind.BULK, Kind.ROUND_TRIPS, Kind.NEW_CONNECTIONS)
    peers = [peer for peer in figures.peers if peer.set_up]
    lines = [
        [row.title, row.cpu_unit, *(number(figures.cpu_per_operation(row, peer.name)) for peer in peers)]
        for row in figures.rows
        if row.kind in kinds
    ]
    return Table("CPU time of a pair", ["", "", *(peer.name for peer in peers)], lines)


def memory(figures: Figures) -> Table:
    """Resident memory by side, at rest and for each idle connection, and CPU time while idle."""
    lines = []
    for peer in figures.peers:
        held = figures.memory(peer.name)
        if held is None or not held.rest:
            continue
        rest = [f"{held.rest[side] / KIB**2:.1f}" for side in ("connect", "listen")]
        each = [f"{held.per_connection(side) / KIB:.1f}" for side in ("connect", "listen")]
        lines.append([peer.title, *rest, *each, f"{held.idle_cpu * 100:.1f} %"])
    head = ["", "connect: MiB at rest", "listen: MiB at rest", "connect: KiB/conn.", "listen: KiB/conn.", "CPU while idle"]
    held = next(iter(figures.results.memory), None)
    return Table(f"Resident memory, {held.connections if held else 0:,} idle connections", head, lines)


def verdicts(title: str, targets: Sequence[Target]) -> Table:
    """The targets and the measured values."""
    words = {True: "met", False: "missed", None: "not measured"}
    lines = [
        [target.text, ("≤ " if target.at_most else "≥ ") + factor(target.wanted), factor(target.value), words[target.met]]
        for target in targets
    ]
    return Table(title, ["", "wanted", "measured", ""], lines)


def overview(figures: Figures) -> list[Table]:
    """The tables of a run, without empty ones."""
    return [
        table
        for table in (rates(figures), latencies(figures), first_answers(figures), cpu(figures), memory(figures))
        if table.lines
    ]
