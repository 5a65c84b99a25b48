"""`stcp-proxy listen`: one tunnel's end beside the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stcp_proxy.cli import options

if TYPE_CHECKING:
    from stcp_proxy.config import Plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("listen")(listen)


def listen(
    bind: options.Bind,
    to: options.ListenTo = None,
    balance: options.Balance = None,
    service: options.Services = None,
    proxy_protocol: options.ProxyProtocol = None,
    bind_mode: options.BindMode = None,
    key: options.Key = None,
    allow: options.Allow = None,
    psk: options.Psk = None,
    suite: options.Suites = None,
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
    """Beside the server: accept STCP, hand on plain TCP."""
    from stcp_proxy.cli.serve import serve_plan
    from stcp_proxy.config import Mode, plan_from_flags

    def make() -> Plan:
        return plan_from_flags(
            mode=Mode.LISTEN,
            bind=bind,
            to=to or [],
            balance=balance,
            services=service or [],
            proxy_protocol=proxy_protocol,
            bind_mode=bind_mode,
            key=key,
            allow=allow or [],
            psk=psk,
            suite=suite or [],
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
