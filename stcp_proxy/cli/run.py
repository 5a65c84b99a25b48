"""`stcp-proxy run`: the tunnels of a file, and the application that needs them."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli import arguments

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


def run(
    config: arguments.ConfigFile,
    application: Application = None,
    admin: arguments.Admin = None,
    admin_token: arguments.AdminToken = None,
) -> None:
    """Run the tunnels of a YAML file, and an application beside them if one is named."""

    from stcp_proxy.cli.serve import serve_plan
    from stcp_proxy.config.reader_process import FileReading

    reading = FileReading(str(config), admin, None if admin_token is None else str(admin_token))
    raise typer.Exit(serve_plan(reading.here, reading, application or ()))
