"""The agent of kernel sockets in a process that serves: its start, its reload and its end.

Worker process 0 has it: a network namespace has one agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from stcp_proxy.config import Plan
from stcp_proxy.errors import ConfigError

if TYPE_CHECKING:  # loaded only by those who have an agent
    from stcp_proxy.agent.agent import Agent


class KernelAgent:
    """The agent of one process, or none.

    Args:
        plan: what the process serves.
        worker: number of this process among several.
    """

    def __init__(self, plan: Plan, worker: int) -> None:
        self._agent: Final = _open(plan) if worker == 0 else None
        self._serves = False

    def start(self, connections: trio.Nursery) -> None:
        """Do handshakes from now on."""
        if self._agent is not None:
            connections.start_soon(self._agent.serve)
            self._serves = True

    def change(self, plan: Plan) -> None:
        """Follow a reload."""
        if self._agent is not None and plan.agent is not None:
            self._agent.change(plan.agent)

    def stop(self) -> None:
        """Take no further handshake."""
        if self._agent is not None:
            self._agent.stop()

    async def wait_ended(self) -> None:
        """Return when no handshake is under way, after `stop`. The kernel gives each of them a deadline."""
        if self._agent is not None and self._serves:
            await self._agent.ended.wait()

    def close(self) -> None:
        """Close everything, also where it never served."""
        if self._agent is not None:
            self._agent.close()


def _open(plan: Plan) -> Agent | None:
    if plan.agent is None:
        return None
    from stcp_proxy.agent.agent import open_agent

    return open_agent(plan.agent)


def check_same(old: Plan, new: Plan) -> None:
    """Refuse a reload that adds or removes the agent.

    Raises:
        ConfigError: it does.
    """
    if (old.agent is None) is not (new.agent is None):
        has = "has an 'agent'" if old.agent is None else "has no 'agent' any more"
        raise ConfigError(f"the file {has}: only a new start adds or removes it", remedy="restart, or undo the change")
