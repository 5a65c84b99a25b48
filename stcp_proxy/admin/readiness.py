"""Whether a proxy is ready, and why not.

It is ready when every tunnel listens, no socket file is lost, the rules of interception are those of the file, and the egress
filter is attached where it is wanted. A tunnel with `ready: target` also checks its far target, end to end. A result is valid for
some seconds, and each tunnel runs one check at a time: requests cannot overload a target.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from stcp_proxy.admin.interface import Host, Tunnel
from stcp_proxy.admin.report import Report
from stcp_proxy.errors import StcpError

HOLDS: Final = 5.0
"""Seconds for which a result is valid."""


_EGRESS_REMEDY: Final = {
    "missing": "run 'stcp-proxy intercept --apply'",
    "hidden": "the filter of another program comes first; 'tc filter show dev INTERFACE egress' lists both",
}


class Readiness:
    """Checks the far targets of the tunnels with `ready: target`.

    Args:
        host: the process.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: dict[str, tuple[float, StcpError | None]] = {}
        self._turns: dict[str, trio.Lock] = {}

    async def failures(self) -> dict[str, StcpError]:
        """The tunnels whose far target does not answer, and why."""
        wanted = [tunnel for tunnel in self._host.tunnels if tunnel.plan.ready_by_target and tunnel.addresses]
        names = {tunnel.plan.name for tunnel in wanted}
        self._found = {name: found for name, found in self._found.items() if name in names}
        async with trio.open_nursery() as nursery:
            for tunnel in wanted:
                nursery.start_soon(self._ask, tunnel)
        known = {name: self._found[name][1] for name in names if name in self._found}
        return {name: exc for name, exc in known.items() if exc is not None}

    async def _ask(self, tunnel: Tunnel) -> None:
        name = tunnel.plan.name
        async with self._turns.setdefault(name, trio.Lock()):
            at, _ = self._found.get(name, (-HOLDS, None))
            if trio.current_time() < at + HOLDS:
                return
            failure: StcpError | None = None
            try:
                await tunnel.reach()
            except StcpError as exc:
                failure = exc
            self._found[name] = (trio.current_time(), failure)


def words(report: Report, failures: dict[str, StcpError], *, in_full: bool) -> list[str]:
    """The reasons why a proxy is not ready, one line each; empty when it is ready.

    Args:
        report: the merged report of all worker processes.
        failures: tunnels whose far target does not answer.
        in_full: whether the lines may contain addresses.
    """
    return list(_lines(report, failures, in_full))


def _lines(report: Report, failures: dict[str, StcpError], in_full: bool) -> Iterable[str]:
    if report.process.state != "ready":
        yield report.process.state
        return
    for tunnel in report.tunnels:
        if tunnel.rules in ("missing", "outdated"):
            yield f"tunnel {tunnel.name}: the rules of interception are {tunnel.rules}: run 'stcp-proxy intercept --apply'"
        if tunnel.egress_filter in ("missing", "hidden"):
            where = f" ({', '.join(tunnel.egress_interfaces)})" if in_full else ""
            remedy = _EGRESS_REMEDY[tunnel.egress_filter]
            yield f"tunnel {tunnel.name}: the egress filter is {tunnel.egress_filter}{where}: {remedy}"
        if tunnel.lost:
            where = f" ({', '.join(tunnel.lost)})" if in_full else ""
            yield f"tunnel {tunnel.name}: socket_lost: its socket file{where} was removed or replaced; reload to bind it anew"
        failure = failures.get(tunnel.name)
        if failure is not None:
            yield f"tunnel {tunnel.name}: {failure.label}" + (f": {failure}" if in_full else "")
