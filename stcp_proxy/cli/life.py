"""`stcp-proxy wait` and `stcp-proxy quit`: the beginning and the end of a proxy that runs, for its neighbours."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli import where


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("wait")(wait)
    app.command("quit")(quit_)


def wait(
    config: where.Config = None,
    admin: where.Admin = None,
    admin_token: where.AdminToken = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Give up after this; 0 asks once.")] = "60s",
) -> None:
    """Return when a running proxy is ready: for whatever has to start after it, and as a health check.

    It is asked at its admin address. Exit status 1 when it is not ready in time.
    """
    from stcp_proxy.admin.wait import wait_until_ready
    from stcp_proxy.config.models import parse_duration

    wait_until_ready(where.admin_of(config, admin, admin_token), parse_duration(timeout))


def quit_(config: where.Config = None, admin: where.Admin = None, admin_token: where.AdminToken = None) -> None:
    """End a running proxy as SIGTERM does, open connections first: for the end of a job whose proxy is in another container.

    It is told at its admin address. Returns when the proxy has taken it.
    """
    from stcp_proxy.admin.client import ask_well

    ask_well(where.admin_of(config, admin, admin_token), "/quit", method="POST")
