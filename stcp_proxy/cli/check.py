"""`stcp-proxy check`: what a file would run."""

from __future__ import annotations

import typer

from stcp_proxy.cli.arguments import ConfigFile


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(config: ConfigFile) -> None:
    """Check a YAML file and the keys it names, and print what would run and which engine this machine has."""
    import sys
    import time

    from stcp_proxy.cli.console import wrapped
    from stcp_proxy.config import describe_plan, load_plan
    from stcp_proxy.config.audited_rules import audited_rules, refuse_ended
    from stcp_proxy.config.example_keys import refuse_examples
    from stcp_proxy.config.lifetimes import lifetimes
    from stcp_proxy.relay.engine_choice import describe_kernel

    plan = load_plan(config)
    print(wrapped(f"{describe_plan(plan)}\n{describe_kernel()}"))
    for each in lifetimes(plan):
        problem = each.problem(time.time())
        if problem is not None:
            print(f"warning: {each.subject}: {'; '.join(problem)}", file=sys.stderr)
    for rule in audited_rules(plan):
        event, why, remedy = rule.warning(time.time())
        print(f"warning: tunnel {rule.tunnel}: {event}: {why}; {remedy}", file=sys.stderr)
    if any(tunnel.intercept for tunnel in plan.tunnels):
        from stcp_proxy.intercept.users import caller_is_shared

        for warning in caller_is_shared(plan.tunnels):
            print(f"warning: {warning}", file=sys.stderr)
    refuse_examples(plan)
    refuse_ended(plan)
