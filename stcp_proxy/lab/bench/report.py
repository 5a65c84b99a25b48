"""A run of the benchmark as JSON and as a Markdown report with plots."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stcp_proxy.lab.bench import plots as plots
from stcp_proxy.lab.bench.cells import Table
from stcp_proxy.lab.bench.figures import Figures, targets


def as_json(figures: Figures, environment: Mapping[str, str], command: str) -> str:
    """Every sample, the medians, the targets, and the environment."""
    results, plan = figures.results, figures.results.plan
    content: dict[str, Any] = {
        "command": command,
        "began": _moment(results.began),
        "took_seconds": round(results.took, 1),
        "environment": dict(environment),
        "plan": {"rounds": plan.rounds, "seconds": plan.seconds, "idle_connections": plan.idle},
        "rows": [dataclasses.asdict(row) | {"kind": row.kind.value, "unit": row.unit} for row in plan.rows],
        "peers": [_peer(figures, peer.name) for peer in plan.peers],
        "samples": [dataclasses.asdict(sample) for sample in results.samples],
        "memory": [dataclasses.asdict(memory) for memory in results.memory],
        "failures": [dict(zip(("row", "peer", "what"), failure, strict=True)) for failure in results.failures],
        "targets": {
            peer.name: [dataclasses.asdict(target) | {"met": target.met} for target in targets(figures, peer.name)]
            for peer in figures.ours()
        },
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _peer(figures: Figures, name: str) -> dict[str, Any]:
    peer = next(peer for peer in figures.results.plan.peers if peer.name == name)
    absent = figures.results.absent.get(name)
    return {"name": name, "title": peer.title, "role": peer.role.value, "version": peer.version(), "absent": absent}


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def markdown(table: Table) -> str:
    """One table in Markdown, with figures aligned to the right."""
    rule = [":--", *["--:"] * (len(table.head) - 1)]
    lines = ["| " + " | ".join(line) + " |" for line in (table.head, rule, *table.lines)]
    return "\n".join([f"### {table.title}", "", *lines, ""])


def environment_lines(environment: Mapping[str, str], command: str) -> list[str]:
    """The command and its environment, as paragraphs."""
    return [f"`{command}`", "\n".join(f"- {name}: {value}" for name, value in environment.items())]


def heading(figures: Figures, environment: Mapping[str, str], command: str) -> list[str]:
    """Paragraphs above the tables: command, method, environment, versions, and missing measurements."""
    results = figures.results
    method = (
        f"{_moment(results.began)}, {results.took:.0f} s: {results.plan.rounds} rounds of {results.plan.seconds:g} s a sample, "
        "all pairs in turns within each round. Medians of the rounds; a ratio is the median of each round's ratio."
    )
    return [
        *environment_lines(environment, command),
        method,
        "\n".join(f"- {peer.title}: {peer.version()}" for peer in figures.peers if peer.version()),
        *(f"Left out: {name}: {why.splitlines()[0]}" for name, why in results.absent.items()),
        *(f"Failed: {row} through {peer}: {what}" for row, peer, what in results.failures),
    ]


def write_markdown(path: Path, above: Sequence[str], tables: Sequence[Table], pictures: Sequence[Path]) -> None:
    """Write a report: paragraphs, tables, and plots in a folder with the report's name.

    Raises:
        OSError: the file cannot be written.
    """
    parts = ["# Benchmark", *above, *(markdown(table) for table in tables)]
    parts += [f"![{picture.stem}]({path.stem}/{picture.name})" for picture in pictures]
    path.write_text("\n\n".join(part.strip() for part in parts if part) + "\n")
