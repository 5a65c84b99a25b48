"""`stcp-proxy quit`: stop a running proxy."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli import running_proxy


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quit")(quit_)


def quit_(
    config: running_proxy.Config = None,
    admin: running_proxy.Admin = None,
    admin_token: running_proxy.AdminToken = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the proxy has ended.")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="With --wait, give up after this.")] = "60s",
) -> None:
    """Stop a running proxy as SIGTERM does, open connections first: for the end of a job whose proxy is in another container.

    The command tells it at its admin address, and returns when the proxy has accepted. Exit status 1 when --wait ran out of time.
    """
    from stcp_proxy.admin.client import ask_well
    from stcp_proxy.admin.wait import started, wait_until_ended
    from stcp_proxy.config.duration import parse_duration

    found, seconds = running_proxy.admin_of(config, admin, admin_token), parse_duration(timeout)
    since = started(found) if wait else 0.0
    ask_well(found, "/quit", method="POST")
    if wait:
        wait_until_ended(found, since, seconds)
