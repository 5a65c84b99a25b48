"""What the commands that serve hand over: a plan, and what to do with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

from stcp_proxy.config import Plan
from stcp_proxy.config.reader_process import HEAD, PLAN, FileReading, send
from stcp_proxy.errors import ConfigError

if TYPE_CHECKING:
    from stcp_proxy.process.takeover_client import Takeover

_server: BinaryIO | None = None
"""Leads to the process that serves, where that is another than this one."""


def hand_over_to(server: BinaryIO) -> None:
    """Send what `serve_plan` is given through a pipe, instead of serving in this process."""
    global _server
    _server = server


def serve_plan(
    make: Callable[[], Plan],
    again: FileReading | None = None,
    application: Sequence[str] = (),
    *,
    replace: bool = False,
) -> int:
    """Serve a plan until it is stopped, or hand it over to the process that serves.

    Args:
        make: makes the plan.
        again: reads the configuration again; None where there is no file.
        application: what to start beside the proxy, with its arguments.
        replace: whether to take over from the process that runs.

    Returns:
        The exit status.

    Raises:
        StcpError: the plan cannot be made, or the proxy could not start.
    """
    if replace and application:
        remedy = "leave one of them out; a container with an application is replaced as a whole"
        raise ConfigError("--replace and an application exclude each other: the old application would go on", remedy=remedy)
    if _server is None:
        return beside(application, lambda: serve(make(), again, replace=replace))
    head = {"again": None if again is None else asdict(again), "application": list(application), "replace": replace}
    send(_server, HEAD, json.dumps(head).encode())
    _server.flush()
    plan = make()
    from stcp_proxy.config import plan_bytes

    send(_server, PLAN, plan_bytes.dump(plan))
    return 0


def beside(application: Sequence[str], proxy: Callable[[], int]) -> int:
    """Run a proxy, and an application beside it where one is named. Returns the exit status."""
    if not application:
        return proxy()
    from stcp_proxy.process.application import run

    return run(application, proxy)


def serve(plan: Plan, again: FileReading | None, *, replace: bool = False) -> int:
    """Serve `plan` in this process until it is stopped.

    Args:
        plan: what to serve.
        again: reads the configuration again; None where there is no file.
        replace: whether to take over from the process that runs.

    Returns:
        The exit status.

    Raises:
        StcpError: it could not start.
    """
    from stcp_proxy import process
    from stcp_proxy.cli.beside import Beside
    from stcp_proxy.process import sandbox

    read = None if again is None else sandbox.reading(again.begin)
    takeover = _take_over(plan) if replace else None
    try:
        listeners = None if takeover is None or plan.admin is None else takeover.admin(plan.admin)
        with Beside(plan, listeners) as beside:
            return process.run(plan, read, beside=beside, takeover=takeover)
    finally:
        if takeover is not None:
            takeover.abandon()


def _take_over(plan: Plan) -> Takeover:
    """Get the listening sockets of the process that runs.

    Raises:
        ConfigError: the plan does not say where, or that process refuses.
    """
    from stcp_proxy.process.takeover_client import take_over

    if plan.takeover is None:
        remedy = "set 'takeover: unix:/path' in the file (--takeover unix:/path), in both processes"
        raise ConfigError("--replace needs a socket at which the process that runs can be asked", remedy=remedy)
    return take_over(plan.takeover)
