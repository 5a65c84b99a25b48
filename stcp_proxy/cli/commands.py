"""Every command in one typer application."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stcp_proxy import __version__
from stcp_proxy.cli import (
    ca,
    check,
    completion,
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


class Commands(TyperGroup):
    """The commands. Those that get their options from the settings' models get them when one of them is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, tunnel_commands.build(name) if name in tunnel_commands.TEXTS else command, rest


app = typer.Typer(
    cls=Commands,
    name="stcp-proxy",
    help="Carries plain TCP through an encrypted, mutually authenticated tunnel. The application changes nothing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
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
):
    command.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stcp-proxy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


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
    completion.mend(os.environ)
    app(prog_name="stcp-proxy")
