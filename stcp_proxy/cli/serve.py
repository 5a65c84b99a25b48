"""A plan served, with the admin address beside the tunnels where there is one."""

from __future__ import annotations

from stcp_proxy.config import Plan


def serve(plan: Plan) -> int:
    """Serve `plan` until it is stopped.

    Returns:
        The exit status.

    Raises:
        StcpError: it could not start.
    """
    from stcp_proxy import tunnel

    if plan.admin is None:
        return tunnel.run(plan)
    from stcp_proxy.admin.server import AdminServer  # the web server is loaded only by those who want it

    with AdminServer(plan.admin, workers=plan.workers) as server:
        return tunnel.run(plan, beside=server)
