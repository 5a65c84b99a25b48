"""`stcp-proxy intercept`: the rules of this host that send outbound connections to a tunnel."""

from __future__ import annotations

from typing import Annotated

import typer

from stcp_proxy.cli.arguments import ConfigFile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("intercept")(intercept)


def intercept(
    config: ConfigFile,
    apply: Annotated[bool, typer.Option("--apply", help="Install the rules; twice is as good as once.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take away what --apply has installed.")] = False,
    uid: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help="Name or number of the user the proxy runs as, who is left alone; repeat it for more."),
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the nftables table; stcp_proxy unless said.")] = None,
) -> None:
    """Print the nftables rules that send outbound connections to the tunnel with 'intercept' in a YAML file."""
    import sys

    from stcp_proxy import intercept as rules
    from stcp_proxy.config.intercept import load_capture
    from stcp_proxy.errors import ConfigError
    from stcp_proxy.intercept.install import check_table
    from stcp_proxy.intercept.users import exempt_users

    if apply and remove:
        raise ConfigError("--apply and --remove exclude each other", remedy="give one of them")
    name = check_table(table or rules.TABLE)
    if remove:
        print(rules.remove(name), file=sys.stderr)
        return
    capture = load_capture(config)
    made = rules.rules_for(capture, exempt_users(uid or [], capture), table=name)
    if apply:
        print(rules.apply(made), file=sys.stderr)
    else:
        print(made, end="")
