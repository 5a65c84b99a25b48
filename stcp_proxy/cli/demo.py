"""`stcp-proxy demo`: see it work."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo() -> None:
    """See it work: both proxies, a server, a client and an eavesdropper on this machine. Needs nothing, leaves nothing.

    Takes a few seconds. Exit status 1 when anything did not behave as promised, so it is a self-test, too.
    """
    from stcp_proxy.demo import run

    raise typer.Exit(run())
