"""The command line: parse, call, print.

One small file for each command, with `register(app)` in it; options that commands share are in ``options``. Whatever a command
needs beyond typer is imported when it runs, so that `--help` and completion answer at once.

Exit status: 0 done, 1 failed while running, 2 wrong usage or configuration.
"""

from __future__ import annotations

import os
import sys
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
from stcp_proxy.errors import ConfigError, StcpError

FAILED = 1
WRONG_USAGE = 2

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


def main() -> None:
    """Run the command line of this process; an expected failure is one sentence on stderr, not a traceback."""
    completion.mend(os.environ)
    try:
        app(prog_name="stcp-proxy")
    except StcpError as exc:
        print(f"stcp-proxy: {exc}", file=sys.stderr)
        sys.exit(WRONG_USAGE if isinstance(exc, ConfigError) else FAILED)
