"""`stcp-proxy keygen`: a new key."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from stcp_proxy.cli import completion

Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write it here, mode 0600; never overwrites.",
        autocompletion=completion.files,
    ),
]
Psk = Annotated[bool, typer.Option("--psk", help="Make a shared secret instead of a private key.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("keygen")(keygen)


def keygen(out: Out = None, psk: Psk = False) -> None:
    """Make a private key and print its public key.

    With --out, the key goes to the file and the public key to standard output; without, the key itself goes to standard output
    and the public key to standard error.
    """
    from stcp_proxy import keys

    if psk:
        line, public = keys.format_psk(keys.generate_psk()), None
    else:
        key = keys.PrivateKey.generate()
        line, public = keys.format_private_key(key), str(key.public)
    if out is None:
        _warn_if_open()
        print(line, flush=True)  # a key that could not be written has no public key to show
        _print(public, sys.stderr)
    else:
        comment = f"# public key: {public}\n" if public else "# the same file belongs on both sides\n"
        keys.write_secret_file(out, comment + line + "\n")
        _print(public, sys.stdout)


def _print(public: str | None, stream: TextIO) -> None:
    if public is not None:
        print(public, file=stream)


def _warn_if_open() -> None:
    """A shell's `>` makes a file that others can read: say it while the key is new."""
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        print("stcp-proxy: the file that takes the key is open to others; 'chmod 600' it, or use --out", file=sys.stderr)
