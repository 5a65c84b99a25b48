"""`stcp-proxy reload`: make what the file says what a running proxy does."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli import running_proxy


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reload")(reload)


def reload(
    config: running_proxy.Config = None,
    admin: running_proxy.Admin = None,
    admin_token: running_proxy.AdminToken = None,
    check: Annotated[bool, typer.Option("--check", help="Only show what would change.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also take away more than half of the tunnels, peers, authorities or revocations, "
            "or take an older revocation list.",
        ),
    ] = False,
) -> None:
    """Let a running proxy read its file again, whole or not at all, and print what has changed.

    It is told at its admin address; SIGHUP does the same. Exit status 1 when it refuses, and nothing has changed.
    """
    import json
    from http import HTTPStatus

    from stcp_proxy.admin.client import REFUSED, AdminError, ask
    from stcp_proxy.redact import printable

    there = running_proxy.admin_of(config, admin, admin_token)
    status, body = ask(there, f"/reload?check={int(check)}&force={int(force)}", method="POST", timeout=60.0)
    words = body.decode("utf-8", "replace").strip()
    if status == REFUSED:
        raise AdminError("refused, and everything goes on as before:\n  " + "\n  ".join(map(printable, words.splitlines())))
    if status != HTTPStatus.OK:
        what = f"the proxy at {there.address} answers: {printable(words[:300])}"
        raise AdminError(what, remedy="check the address and the token")
    print("\n".join(map(printable, json.loads(words)["lines"])))
