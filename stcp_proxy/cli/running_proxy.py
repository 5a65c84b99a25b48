"""Which running proxy a command talks to: the one of a file, or the one at an address."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stcp_proxy.cli import completion
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.redact import shown

if TYPE_CHECKING:
    from stcp_proxy.config import AdminPlan

Config = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        help="The file that the proxy runs, which has 'admin'.",
        show_default=False,
        autocompletion=completion.files,
    ),
]
Admin = Annotated[str | None, typer.Option(metavar="ADDR", help="Its admin address, in place of a file.")]
AdminToken = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The token of that address, where it asks for one.",
        autocompletion=completion.files,
    ),
]


def admin_of(config: Path | None, admin: str | None, admin_token: Path | None) -> AdminPlan:
    """The admin address that a command is given.

    Raises:
        ConfigError: none is, or more than one, or it cannot be read.
    """
    from stcp_proxy.config.admin_address import admin_of_file, admin_of_flags

    if admin is not None:
        if config is not None:
            raise ConfigError("both a file and --admin say where the proxy is", remedy="give one of them")
        return admin_of_flags(admin, admin_token)
    if config is None:
        raise ConfigError("nothing says which proxy is meant", remedy="give its CONFIG, or --admin ADDR")
    if admin_token is not None:
        raise ConfigError("--admin-token goes with --admin", remedy="leave it out: the file names the token")
    return admin_of_file(config)


def complete_tunnel(ctx: typer.Context, incomplete: str) -> list[str]:
    """The tunnels of the file that has been typed already; nothing where it cannot be read."""
    from stcp_proxy.config.yaml_file import file_source

    # The option under way has no value yet. Click's parser stops there and leaves the words before it in `args`.
    config = ctx.params.get("config") or next(iter(ctx.args), None)
    try:
        names = list(file_source(Path(config)).data["tunnels"]) if config else []
    except (StcpError, KeyError, TypeError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def check_tunnel(name: str, known: Collection[str]) -> None:
    """Refuse the name of a tunnel that a running proxy does not have.

    Raises:
        ConfigError: with the near names.
    """
    if not name or name in known:
        return
    close = difflib.get_close_matches(name, known, n=3)
    remedy = f"did you mean {' or '.join(map(shown, close))}?" if close else f"it has {', '.join(known)}"
    raise ConfigError(f"this proxy has no tunnel {shown(name)}", remedy=remedy)
