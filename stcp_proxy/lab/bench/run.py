"""One call of the benchmark from its options to its exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from stcp_proxy.lab.bench import cells, environment, figures, measure, peers, report, rows, table
from stcp_proxy.lab.bench.figures import Figures
from stcp_proxy.lab.bench.measure import Plan


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; empty is all.

    Attributes:
        variants: further pairs of this project, `NAME=OPTIONS`.
        json: where every sample goes.
        report: where the Markdown report goes.
    """

    rows: Sequence[str] = ()
    peers: Sequence[str] = ()
    variants: Sequence[str] = ()
    rounds: int = 5
    seconds: float = 2.0
    quick: bool = False
    json: Path | None = None
    report: Path | None = None


def plan_of(options: Options) -> Plan:
    """The plan for these options; `quick` stays under a minute with all rows and peers.

    Raises:
        ConfigError: a row, peer or variant that does not exist.
    """
    chosen = rows.choose(options.rows), peers.choose(options.peers, peers.variants(options.variants))
    if options.quick:
        return Plan(*chosen, rounds=1, seconds=0.25, idle=200, idle_seconds=0.2)
    return Plan(*chosen, rounds=options.rounds, seconds=options.seconds)


def bench(options: Options, console: Console) -> int:
    """Run the benchmark, show its tables, write what was asked for.

    Returns:
        Exit status: 1 when this project failed in a row.
    """
    plan, before = plan_of(options), environment.describe()
    with table.progress(console, plan.steps) as progress:
        answers = Figures(measure.run(plan, progress))
    show(answers, console)
    for peer in answers.ours():
        table.show(console, cells.verdicts(f"Targets of {peer.name}", figures.targets(answers, peer.name)))
    _write(answers, before, options, console)
    return int(answers.failed())


def floor(options: Options, console: Console) -> int:
    """The first floor only: this project against HAProxy with TLS.

    Returns:
        Exit status: 1 when the floor is not reached by every engine that is there.
    """
    wanted = [peer.name for peer in peers.OURS if not peer.missing()]
    plan = Plan(
        rows.choose([row for row, _, _ in figures.FLOOR]), peers.choose([*wanted, "haproxy"]), options.rounds, options.seconds
    )
    with table.progress(console, plan.steps) as progress:
        answers = Figures(measure.run(plan, progress))
    show(answers, console)
    reached = not answers.failed()
    for name in wanted:
        verdicts = figures.floor(answers, name)
        table.show(console, cells.verdicts(f"The floor under {name}", verdicts))
        reached = reached and all(target.met for target in verdicts)
    return int(not reached)


def show(answers: Figures, console: Console) -> None:
    for name, why in answers.results.absent.items():
        console.print(f"left out: {name}: {why}", highlight=False, markup=False)
    for row, peer, what in answers.results.failures:
        console.print(f"failed: {row} through {peer}: {what}", highlight=False, markup=False)
    for each in cells.overview(answers):
        table.show(console, each)


def _write(answers: Figures, before: dict[str, str], options: Options, console: Console) -> None:
    command = ["stcp-proxy", *sys.argv[1:]]
    if options.json:
        options.json.write_text(report.as_json(answers, before, command))
        console.print(f"samples written to {options.json}")
    if options.report:
        report.write_markdown(options.report, answers, before, command)
        console.print(f"report written to {options.report}")
