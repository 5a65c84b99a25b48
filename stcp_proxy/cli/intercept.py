"""`stcp-proxy intercept`: the rules of this host that send outbound connections to a tunnel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stcp_proxy.cli.arguments import ConfigFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from stcp_proxy.intercept import Rules


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("intercept")(intercept)


def intercept(
    config: ConfigFile,
    apply: Annotated[bool, typer.Option("--apply", help="Install the rules; twice is as good as once.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what --apply has installed.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Install the rules, stay, and restore them whenever they are gone.")
    ] = False,
    uid: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help="Name or number of the proxy's user, whom the rules leave alone; repeat it for more."),
    ] = None,
    cgroup: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Leave that user alone in this control group only: system.slice/stcp-proxy.service."),
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the nftables table. [default: stcp_proxy]")] = None,
    egress_filter: Annotated[
        bool,
        typer.Option(
            "--egress-filter/--no-egress-filter",
            help="Also filter at the interfaces, so that nothing leaves when another program deletes the rules.",
        ),
    ] = True,
) -> None:
    """Print the nftables rules that send outbound connections to the tunnel with 'intercept' in a YAML file."""
    from stcp_proxy import intercept as rules
    from stcp_proxy.errors import ConfigError
    from stcp_proxy.intercept.install import check_table
    from stcp_proxy.intercept.users import user_ids

    if apply + remove + watch > 1:
        raise ConfigError("--apply, --remove and --watch exclude each other", remedy="give one of them")
    name = check_table(table or rules.TABLE)
    if remove:
        _say(rules.remove(name, user_ids(uid or [])))
        return
    make = _maker(config, uid or [], name, cgroup, egress=egress_filter, privileged=apply or watch)
    if watch:
        _watch(make)
    elif apply:
        _say(rules.apply(make()))
    else:
        print(make(), end="")


def _maker(
    config: Path, uid: list[str], table: str, cgroup: str | None, *, egress: bool, privileged: bool
) -> Callable[[], Rules]:
    """Returns what reads the file and makes its rules."""
    from stcp_proxy.config.file_access import check_owner
    from stcp_proxy.config.intercept import load_capture
    from stcp_proxy.intercept import rules_for
    from stcp_proxy.intercept.users import check_cgroup, exempt_users, shared_users

    def make() -> Rules:
        capture = load_capture(config)
        users = exempt_users(uid, capture)
        if privileged:
            check_owner(config, users)
        return rules_for(capture, users, table=table, cgroup=cgroup, egress=egress)

    if cgroup is not None:
        check_cgroup(cgroup, load_capture(config))
    else:
        for warning in shared_users(exempt_users(uid, load_capture(config))):
            _say(f"warning: {warning}")
    return make


def _watch(make: Callable[[], Rules]) -> None:
    """Keep the rules installed until SIGTERM or SIGINT; they stay then."""
    import signal
    import sys

    from stcp_proxy.intercept.watch import Watcher

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(0))
    watcher = Watcher(make, _say)
    try:
        watcher.run()
    finally:
        watcher.close()
        _say("ended: the rules stay, and nobody restores them")


def _say(line: str) -> None:
    import sys

    print(line, file=sys.stderr, flush=True)
