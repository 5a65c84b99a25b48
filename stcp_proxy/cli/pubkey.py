"""`stcp-proxy pubkey`: the public half of a key file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stcp_proxy.cli import completion

KeyFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A private key file.",
        show_default=False,
        autocompletion=completion.files,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pubkey")(pubkey)


def pubkey(file: KeyFile) -> None:
    """Print the public key of a private key file: what the other side needs."""
    from stcp_proxy.keys import load_private_key

    print(load_private_key(file).public)
