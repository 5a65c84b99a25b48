"""Every command in one typer application."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stcp_proxy.cli import (
    ca,
    check,
    command_line,
    demo,
    doctor,
    intercept,
    keygen,
    lab,
    pubkey,
    quit_,
    reload,
    run,
    schema,
    status,
    tunnel_commands,
    wait,
)

app = command_line.build(
    (
        keygen,
        pubkey,
        ca,
        tunnel_commands,
        run,
        wait,
        quit_,
        reload,
        status,
        check,
        schema,
        doctor,
        intercept,
        demo,
        lab,
    )
)


@app.command("help", add_help_option=False)
def help_(
    ctx: typer.Context,
    command: Annotated[str | None, typer.Argument(metavar="COMMAND", show_default=False, help="One command.")] = None,
) -> None:
    """Show the commands, or the options of one of them."""
    group: Any = ctx.parent.command if ctx.parent is not None else None
    group.main([*([command] if command else []), "--help"], prog_name="stcp-proxy")


def call() -> None:
    """Parse the arguments of this process and do what they say; ends in SystemExit."""
    command_line.call(app)
