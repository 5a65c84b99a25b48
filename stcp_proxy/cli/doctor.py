"""`stcp-proxy doctor`: what keeps it from working, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stcp_proxy.cli import completion
from stcp_proxy.cli.console import console

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="CONFIG",
            help="The YAML file; without it, this machine alone.",
            show_default=False,
            autocompletion=completion.files,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Find what keeps it from working: this machine, key files, ports, names, and a real handshake with every peer.

    Changes nothing. Exit status 1 when something fails.
    """
    import dataclasses
    import json

    from stcp_proxy.config import LogPlan
    from stcp_proxy.doctor import Level, examine
    from stcp_proxy.logs import log

    log.configure(LogPlan(level="error"))  # what is worth saying is among the findings
    findings = examine(config)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("", "looked at", "found"):
            table.add_column(name, overflow="fold")
        for finding in findings:
            what = Text(finding.what)
            if finding.remedy:
                what.append(f"\n→ {finding.remedy}", "bold")
            table.add_row(Text(finding.level, _COLOURS[finding.level]), Text(finding.subject), what)
        console().print(table)
    raise typer.Exit(1 if any(finding.level is Level.FAIL for finding in findings) else 0)
