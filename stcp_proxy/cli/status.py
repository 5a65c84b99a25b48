"""`stcp-proxy status`: look into a running proxy."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from stcp_proxy.cli import running_proxy
from stcp_proxy.cli.console import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    config: running_proxy.Config = None,
    admin: running_proxy.Admin = None,
    admin_token: running_proxy.AdminToken = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it, with rates, the busiest first.")] = False,
    interval: Annotated[str, typer.Option(metavar="TIME", help="Between two looks of --watch.")] = "2s",
    connections: Annotated[int, typer.Option(metavar="N", help="Connections that are listed.", min=0, max=1000)] = 10,
    tunnel: Annotated[
        str,
        typer.Option(metavar="NAME", help="Show this tunnel alone.", autocompletion=running_proxy.complete_tunnel),
    ] = "",
    in_full: Annotated[bool, typer.Option("--all", help="Every tunnel, key and refusal, and every name of a list.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="What the proxy answers, as it is.")] = False,
) -> None:
    """Show what a running proxy does: what is wrong, since when, and what to do; tunnels, connections, keys,
    certificates, refusals.

    It is asked at its admin address. Exit status 1 when nothing answers there.
    """
    import json
    import sys
    from urllib.parse import urlencode

    from stcp_proxy.admin.client import AdminError, ask_well
    from stcp_proxy.admin.codec import decode
    from stcp_proxy.admin.status_schema import Status
    from stcp_proxy.config.duration import parse_duration

    plan = running_proxy.admin_of(config, admin, admin_token)
    order = "busiest" if watch else "newest"
    path = "/status?" + urlencode({"connections": connections, "order": order, "tunnel": tunnel})
    if as_json and not watch:
        body = ask_well(plan, path)
        running_proxy.check_tunnel(tunnel, [each["name"] for each in json.loads(body)["tunnels"]])
        sys.stdout.write(body.decode() + "\n")
        return

    from stcp_proxy.admin import terminal_layout, terminal_table, terminal_watch

    def look() -> Status:
        try:
            found = decode(Status, ask_well(plan, path))
        except ValueError:
            raise AdminError(f"what answers at {plan.address} is no proxy of this version", remedy="check the address") from None
        running_proxy.check_tunnel(tunnel, [each.name for each in found.tunnels])
        return found

    limits = terminal_layout.ALL if in_full else None
    if not watch:
        console().print(terminal_table.View(look(), limits=limits or terminal_layout.DEFAULT, tunnel=tunnel))
        return
    with contextlib.suppress(KeyboardInterrupt):
        terminal_watch.watch(console(), look, max(0.1, parse_duration(interval)), tunnel=tunnel, limits=limits)
