"""`stcp-proxy schema`: the settings of a file, for an editor or to read."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("schema")(schema)


def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="A page to read, which is docs/SETTINGS.md.")] = False,
) -> None:
    """Print the JSON schema of a configuration file, for an editor to check and complete by."""
    import json

    from stcp_proxy.config import reference

    print(reference.page() if markdown else json.dumps(reference.json_schema(), indent=2), end="" if markdown else "\n")
