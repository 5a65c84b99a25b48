"""The command line as a typer application, with all commands or some of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stcp_proxy import __version__
from stcp_proxy.cli import completion, tunnel_commands


class Commands(TyperGroup):
    """The commands. Those that get their options from the settings' models get them when one of them is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, tunnel_commands.build(name) if name in tunnel_commands.TEXTS else command, rest


def build(commands: Iterable[ModuleType]) -> typer.Typer:
    """Make the command line.

    Args:
        commands: the modules of the commands, in the order of the help.
    """
    app = typer.Typer(
        cls=Commands,
        name="stcp-proxy",
        help="Carries plain TCP through an encrypted, mutually authenticated tunnel. The application changes nothing.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in commands:
        command.register(app)
    app.callback()(_options)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stcp-proxy {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def call(app: typer.Typer) -> None:
    """Parse the arguments of this process and do what they say; ends in SystemExit."""
    completion.mend(os.environ)
    app(prog_name="stcp-proxy")
