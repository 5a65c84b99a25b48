"""One call of the benchmark from its options to its exit status."""

from __future__ import annotations

import enum
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from stcp_proxy.lab import ladder, reference, soak
from stcp_proxy.lab.bench import cells, environment, figures, growth, measure, peers, report, rows, table
from stcp_proxy.lab.bench.cells import Table
from stcp_proxy.lab.bench.figures import Figures
from stcp_proxy.lab.bench.measure import Plan


class Task(enum.StrEnum):
    """What a call of the benchmark measures."""

    COMPARE = "compare"
    GROWTH = "growth"
    LADDER = "ladder"
    REFERENCE = "reference"
    FLOOR = "floor"
    SOAK = "soak"


@dataclass(frozen=True, slots=True)
class Options:
    """The user's options. An empty selection means all.

    Attributes:
        rows: names, or beginnings of names.
        peers: names.
        variants: further pairs of this project, `NAME=OPTIONS`.
        roots: root file systems with further TLS peers, `TAG=FOLDER`.
        rounds: samples for each row and peer.
        seconds: running time of one sample; None for the default of the task.
        quick: one short round.
        json: the file for every sample.
        report: the file for the Markdown report.
    """

    task: Task = Task.COMPARE
    rows: Sequence[str] = ()
    peers: Sequence[str] = ()
    variants: Sequence[str] = ()
    roots: Sequence[str] = ()
    rounds: int = 5
    seconds: float | None = None
    quick: bool = False
    json: Path | None = None
    report: Path | None = None


SECONDS: Final = 2.0
"""Running time of one sample."""


def run(options: Options) -> int:
    """Run the task and show the result.

    Returns:
        Exit status: 1 when this project failed in a row, or missed a requested minimum.

    Raises:
        ConfigError: a row, peer or variant does not exist.
        LabError: a tool does not work on this machine.
    """
    console = table.standard_output()
    if options.task is Task.LADDER:
        return _ladder(options, console)
    if options.task is Task.REFERENCE:
        return _reference(options, console)
    if options.task is Task.SOAK:
        return _soak(options, console)
    plan, before = plan_of(options), environment.describe()
    with table.progress(console, plan.steps) as progress:
        answers = Figures(measure.run(plan, progress))
    _show_failures(answers, console)
    tables = [growth.table(answers)] if options.task is Task.GROWTH else cells.overview(answers)
    verdicts = {peer.name: _targets(options.task, answers, peer.name) for peer in answers.ours()}
    tables += [cells.verdicts(f"Targets of {name}", found) for name, found in verdicts.items() if found]
    for each in tables:
        table.show(console, each)
    _write(answers, tables, before, options, console)
    if options.task is Task.FLOOR:
        return int(answers.failed() or not all(target.met for found in verdicts.values() for target in found))
    return int(answers.failed())


def plan_of(options: Options) -> Plan:
    """The plan for these options. With `quick`, all rows and peers take less than a minute."""
    extra = (*peers.variants(options.variants), *peers.of_roots(options.roots))
    names = options.peers
    if options.task is Task.FLOOR:
        chosen = rows.choose([row for row, _, _ in figures.FLOOR])
        names = names or [*(peer.name for peer in peers.OURS), "haproxy"]
    elif options.task is Task.GROWTH:
        chosen = growth.ROWS
        names = names or growth.PEERS
    else:
        chosen = rows.choose(options.rows)
    used = tuple(peer for peer in peers.choose(names, extra) if any(peer.measures(row) for row in chosen))
    plan = Plan(chosen, used, rounds=options.rounds, seconds=options.seconds or SECONDS)
    return replace(plan, rounds=1, seconds=0.2, idle=200, idle_seconds=0.2) if options.quick else plan


def _targets(task: Task, answers: Figures, peer: str) -> tuple[figures.Target, ...]:
    if task is Task.GROWTH:
        return ()
    return figures.floor(answers, peer) if task is Task.FLOOR else figures.targets(answers, peer)


def _show_failures(answers: Figures, console: Console) -> None:
    for name, why in answers.results.absent.items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)
    for row, peer, what in answers.results.failures:
        console.print(f"failed: {row} through {peer}: {what}", highlight=False, markup=False)


def _command() -> str:
    return shlex.join(["stcp-proxy", *sys.argv[1:]])


def _write(answers: Figures, tables: Sequence[Table], before: dict[str, str], options: Options, console: Console) -> None:
    if options.json:
        options.json.write_text(report.as_json(answers, before, _command()))
        console.print(f"every sample is in {options.json}")
    if options.report:
        folder = options.report.with_suffix("")
        drawn = growth.draw(answers, folder) if options.task is Task.GROWTH else report.plots.draw(answers, folder)
        report.write_markdown(options.report, report.heading(answers, before, _command()), tables, drawn)
        console.print(f"the report is in {options.report}")


def _ladder(options: Options, console: Console) -> int:
    with table.progress(console, ladder.STEPS) as progress:
        rungs = ladder.climb(seconds=options.seconds or SECONDS, progress=progress)
    _deliver(ladder.table(rungs), [rung.as_dict() for rung in rungs], options, console)
    return 0


def _reference(options: Options, console: Console) -> int:
    engines = [peer for peer in peers.choose(options.peers or [each.name for each in peers.OURS]) if not peer.missing()]
    duration = options.seconds or reference.DURATION
    with table.progress(console, len(engines) * len(reference.RUNS)) as progress:
        outcomes = reference.run(engines, duration=duration, progress=progress)
    _deliver(reference.table(outcomes), [outcome.as_dict() for outcome in outcomes], options, console)
    return int(not all(outcome.clean for outcome in outcomes))


def _soak(options: Options, console: Console) -> int:
    chosen = peers.choose(options.peers or ["stcp"], peers.variants(options.variants))
    duration = options.seconds or soak.DURATION
    with table.progress(console, len(chosen) * soak.STEPS) as progress:
        courses = [soak.watch(peer, duration=duration, progress=progress) for peer in chosen if not peer.missing()]
    drawn = [soak.draw(courses, options.report.with_suffix(""))] if options.report else []
    _deliver(soak.table(courses), [course.as_dict() for course in courses], options, console, drawn)
    return 0


def _deliver(shown: Table, content: object, options: Options, console: Console, drawn: Sequence[Path] = ()) -> None:
    """Show one table, and write the result to the requested files."""
    table.show(console, shown)
    before = environment.describe()
    if options.json:
        everything = {"command": _command(), "environment": before, "results": content}
        options.json.write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
    if options.report:
        report.write_markdown(options.report, report.environment_lines(before, _command()), [shown], drawn)
