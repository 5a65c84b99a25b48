"""The stress client on a terminal: a bar, lines of progress, the result."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stcp_proxy.lab.stress import Run
from stcp_proxy.lab.tally import Summary


def stress(run: Run, *, report_every: float, json_file: Path | None) -> int:
    """Execute a run and print its result. Also write it as JSON when `json_file` is given.

    Args:
        run: the run, not yet executed.
        report_every: seconds between two lines of progress; 0 prints none.
        json_file: `-` means standard output; text for people then goes to standard error.

    Returns:
        Exit status: 1 after any failure.
    """
    to_output = str(json_file) == "-"
    console = Console(stderr=to_output)
    summary = execute(run, console, report_every=report_every)
    show(summary, console)
    if json_file is not None:
        text = json.dumps(summary.as_dict(), indent=1) + "\n"
        if to_output:
            sys.stdout.write(text)
        else:
            json_file.write_text(text)
    if summary.clean:
        return 0
    console.print(f"the first error: {run.tally.first_error}", highlight=False, markup=False)
    return 1


def execute(run: Run, console: Console, *, report_every: float) -> Summary:
    """Execute a run, with a bar on a terminal. Print a line every `report_every` seconds; 0 prints none."""
    with contextlib.ExitStack() as stack:
        bar = None
        if console.is_terminal:
            columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            bar = stack.enter_context(Progress(*columns, console=console, transient=True, auto_refresh=False))
            task = bar.add_task("", total=run.options.duration)
        reported = [0.0, 0]

        def on_tick(elapsed: float) -> None:
            if bar is not None:
                bar.update(task, completed=elapsed, description=f"{run.tally.requests / max(elapsed, 0.001):,.0f} requests/s")
                bar.refresh()
            if report_every and elapsed - reported[0] >= report_every:
                requests = run.tally.requests
                console.print(
                    _line(run, elapsed, (requests - reported[1]) / (elapsed - reported[0])), highlight=False, soft_wrap=True
                )
                reported[:] = elapsed, requests

        return run.execute(on_tick)


def _line(run: Run, elapsed: float, rate: float) -> str:
    tally, so_far = run.tally, run.tally.summary(elapsed, run.options.message_bytes)
    failed = f"{tally.operation_errors} operation errors, {tally.connection_errors} connection errors, {tally.timeouts} timeouts"
    return f"{elapsed:7.1f} s  {rate:,.0f} requests/s  p99 {so_far.p99_ms:.2f} ms so far  {failed}"


def show(summary: Summary, console: Console) -> None:
    """Print the result, one figure on each line."""
    lines = (
        ("throughput, both ways", f"{summary.throughput_mb_s:,.2f} MB/s"),
        ("requests", f"{summary.requests:,} in {summary.seconds:.1f} s: {summary.requests_per_second:,.0f} a second"),
        ("latency, average", f"{summary.average_ms:.3f} ms"),
        ("p50", f"{summary.p50_ms:.3f} ms"),
        ("p99", f"{summary.p99_ms:.3f} ms"),
        ("p99.9", f"{summary.p999_ms:.3f} ms"),
        ("longest", f"{summary.max_ms:.3f} ms"),
        ("connections", f"{summary.connections:,}"),
        ("operation errors", f"{summary.operation_errors:,}"),
        ("connection errors", f"{summary.connection_errors:,}"),
        ("timeouts", f"{summary.timeouts:,}"),
    )
    for name, value in lines:
        console.print(f"{name:>22}  {value}", highlight=False)
