"""Every command in one typer application."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from stcp_proxy import __version__
from stcp_proxy.cli import (
    check,
    completion,
    connect,
    demo,
    doctor,
    intercept,
    keygen,
    lab,
    life,
    listen,
    pubkey,
    reload,
    run,
    status,
)

app = typer.Typer(
    name="stcp-proxy",
    help="Carries plain TCP through an encrypted, mutually authenticated tunnel. The application changes nothing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (keygen, pubkey, listen, connect, run, life, reload, status, check, doctor, intercept, demo, lab):
    command.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stcp-proxy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def call() -> None:
    """Parse the arguments of this process and do what they say; ends in SystemExit."""
    completion.mend(os.environ)
    app(prog_name="stcp-proxy")
