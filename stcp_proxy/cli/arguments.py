"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stcp_proxy.cli import completion

ConfigFile = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="The YAML file.", show_default=False, autocompletion=completion.files),
]
Admin = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="The admin address instead of the file's.", autocompletion=completion.words()),
]
AdminToken = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The token file instead of the file's.", autocompletion=completion.files),
]
REPLACE_TEXT = "Take over the listening sockets of the proxy that runs, which then drains; its 'takeover' is this one's."
Replace = Annotated[bool, typer.Option("--replace", help=REPLACE_TEXT)]
