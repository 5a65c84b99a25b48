"""A plan served, with the admin address beside the tunnels where there is one."""

from __future__ import annotations

from collections.abc import Callable

from stcp_proxy.config import Plan


def serve(plan: Plan, read: Callable[[], Plan] | None = None) -> int:
    """Serve `plan` until it is stopped.

    Args:
        plan: what to serve.
        read: reads the configuration again; None where it cannot be read again.

    Returns:
        The exit status.

    Raises:
        StcpError: it could not start.
    """
    from stcp_proxy import process

    if plan.admin is None:
        return process.run(plan, read)
    from stcp_proxy.admin.server import AdminServer  # the web server is loaded only by those who want it

    with AdminServer(plan.admin, workers=plan.workers) as server:
        return process.run(plan, read, beside=server)
