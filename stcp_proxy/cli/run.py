"""`stcp-proxy run`: the tunnels of a file."""

from __future__ import annotations

import typer

from stcp_proxy.cli.options import ConfigFile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(config: ConfigFile) -> None:
    """Run the tunnels of a YAML file."""
    from stcp_proxy import tunnel
    from stcp_proxy.config import load_plan

    raise typer.Exit(tunnel.run(load_plan(config)))
