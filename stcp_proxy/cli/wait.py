"""`stcp-proxy wait`: return when a running proxy is ready."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli import running_proxy


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("wait")(wait)


def wait(
    config: running_proxy.Config = None,
    admin: running_proxy.Admin = None,
    admin_token: running_proxy.AdminToken = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Give up after this; 0 asks once.")] = "60s",
) -> None:
    """Return when a running proxy is ready: for whatever has to start after it, and as a health check.

    The command asks at the proxy's admin address. Exit status 1 when the proxy is not ready in time.
    """
    from stcp_proxy.admin.wait import wait_until_ready
    from stcp_proxy.config.duration import parse_duration

    wait_until_ready(running_proxy.admin_of(config, admin, admin_token), parse_duration(timeout))
