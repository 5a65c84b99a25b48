"""Revocations in a process that was replaced and drains.

The new process serves by the files as they are. The connections of this process may go on for hours (`takeover_drain`), so it
reads the files again, too, and ends the connections whose key or certificate was taken away. Nothing else of the files counts
here any more.

Invariants:
- The files decide, also without `watch` and without a signal: after a takeover `stcp-proxy reload` goes to the new process.
- A file that this process refuses changes nothing, and the log says so: it may be half written, or made for the new version.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.config.diff import PlanDiff, difference
from stcp_proxy.errors import StcpError
from stcp_proxy.process.reload import Read, Reloader, no_file
from stcp_proxy.process.reload_losses import check_losses
from stcp_proxy.tunnel.tunnels import Tunnels

_log = structlog.get_logger("stcp_proxy.reload")

LOOK: Final = 10.0
"""Longest time between two checks of the files, seconds; `watch` may be shorter."""


class ReplacedReloader(Reloader):
    """Ends the connections that the file no longer admits, and changes nothing else.

    Args:
        tunnels: what this process served.
        read: reads the file; None where there is nothing to read.
        plan: the plan at the time of the takeover, of all workers together.
    """

    def __init__(self, tunnels: Tunnels, read: Read | None, plan: Plan) -> None:
        super().__init__(tunnels, read)
        self._plan_now = _watched(plan)

    @property
    def now(self) -> Plan:
        """The plan that decides about connections. It is watched, whatever the file says."""
        return self._plan_now

    async def reload(self, *, force: bool = False) -> PlanDiff:
        """Read the file, and end the connections that it no longer admits.

        Args:
            force: whether to accept a file that `check_losses` refuses.

        Raises:
            StcpError: the file was refused; nothing has changed.
        """
        try:
            if self.read is None:
                raise no_file()
            plan = await trio.to_thread.run_sync(self.read(), abandon_on_cancel=True)
            if not force:
                check_losses(self.now, plan)
        except Exception as exc:
            why = exc.what if isinstance(exc, StcpError) else f"{type(exc).__name__}: {exc}"
            remedy = "correct the file, or stop this process: SIGTERM ends its connections after 'drain'"
            _log.error("replaced process: files refused, so revocations in them do not count here", why=why, remedy=remedy)
            raise
        diff = difference(self.now, plan)
        self._plan_now = _watched(plan)
        self._tunnels.admit_no_more_than(plan)
        self.done("\n".join(diff.lines()))
        _log.info("replaced process: files read again for revocations", open=self._tunnels.open_connections)
        return diff


def _watched(plan: Plan) -> Plan:
    return dataclasses.replace(plan, watch=min(plan.watch or LOOK, LOOK))
