"""`stcp-proxy connect`: one tunnel's end beside the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stcp_proxy.cli import options

if TYPE_CHECKING:
    from stcp_proxy.config import Plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("connect")(connect)


def connect(
    bind: options.Bind,
    to: options.To,
    balance: options.Balance = None,
    service: options.Service = None,
    bind_mode: options.BindMode = None,
    key: options.Key = None,
    peer: options.Peer = None,
    psk: options.Psk = None,
    suite: options.Suite = None,
    engine: options.Engine = None,
    max_connections: options.MaxConnections = None,
    max_handshakes: options.MaxHandshakes = None,
    handshake_timeout: options.HandshakeTimeout = None,
    dial_timeout: options.DialTimeout = None,
    idle_timeout: options.IdleTimeout = None,
    half_close_timeout: options.HalfCloseTimeout = None,
    drain: options.Drain = None,
    workers: options.Workers = None,
    admin: options.Admin = None,
    admin_token: options.AdminToken = None,
    log_level: options.LogLevel = None,
    log_format: options.LogFormat = None,
    quiet: options.Quiet = None,
) -> None:
    """Beside the client: accept plain TCP, hand on STCP."""
    from stcp_proxy.cli.serve import serve_plan
    from stcp_proxy.config import Mode, plan_from_flags

    def make() -> Plan:
        return plan_from_flags(
            mode=Mode.CONNECT,
            bind=bind,
            to=to,
            balance=balance,
            service=service,
            bind_mode=bind_mode,
            key=key,
            peer=peer,
            psk=psk,
            suite=[suite] if suite else [],
            engine=engine,
            max_connections=max_connections,
            max_handshakes=max_handshakes,
            handshake_timeout=handshake_timeout,
            dial_timeout=dial_timeout,
            idle_timeout=idle_timeout,
            half_close_timeout=half_close_timeout,
            drain=drain,
            workers=workers,
            admin=admin,
            admin_token=admin_token,
            log_level=log_level,
            log_format=log_format,
            quiet=quiet or [],
        )

    raise typer.Exit(serve_plan(make))
