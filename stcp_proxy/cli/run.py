"""`stcp-proxy run`: the tunnels of a file, and the application that needs them."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli.options import ConfigFile

Application = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- APP ARGUMENTS",
        help="Start this when the tunnels accept connections, hand signals on to it, and end after it with its exit status.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(config: ConfigFile, application: Application = None) -> None:
    """Run the tunnels of a YAML file, and an application beside them if one is named."""

    def serve() -> int:
        from stcp_proxy import tunnel
        from stcp_proxy.config import load_plan

        return tunnel.run(load_plan(config))

    if application:
        from stcp_proxy.tunnel.application import run as run_beside

        raise typer.Exit(run_beside(application, serve))
    raise typer.Exit(serve())
