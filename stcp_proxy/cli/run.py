"""`stcp-proxy run`: the tunnels of a file, and the application that needs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    replace: arguments.Replace = False,
) -> None:
    """Run the tunnels of a YAML file, and an application beside them if one is named."""
    check_application(sys.argv[2:], application or [])
    from stcp_proxy.cli.serve import serve_plan
    from stcp_proxy.config.reader_process import FileReading

    reading = FileReading(str(config), admin, None if admin_token is None else str(admin_token))
    raise typer.Exit(serve_plan(reading.here, reading, application or (), replace=replace))


def check_application(written: Sequence[str], application: Sequence[str]) -> None:
    """Refuse a command line whose options could be meant for the application.

    Args:
        written: the arguments of the command.
        application: what was understood as the application and its arguments.

    Raises:
        ConfigError: with the command line that says it clearly.
    """
    from stcp_proxy.errors import ConfigError

    if "--" in written:
        if not application:
            raise ConfigError("nothing is behind --", remedy="name the application there, or leave -- out")
        return
    behind = written[written.index(application[0]) :] if application and application[0] in written else ()
    if any(argument.startswith("-") for argument in behind):
        what = "an option behind the application's name could be meant for either program"
        raise ConfigError(what, remedy="write -- before the application: stcp-proxy run CONFIG -- APP ARGUMENTS")
