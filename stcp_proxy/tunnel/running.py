"""A proxy that runs, as whatever is served beside its tunnels sees it."""

from __future__ import annotations

import enum
import os
import signal
import time
from collections.abc import Sequence
from typing import Final, Protocol

from stcp_proxy.config import Plan
from stcp_proxy.tunnel.service import Service


class State(enum.StrEnum):
    """How far a process is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Running:
    """One process that serves: its tunnels, and what can be asked of it.

    Args:
        plan: what it serves.
        worker: its number among the workers.
        workers: how many there are.
        engines: name of the engine for each configured choice, and why.

    Attributes:
        plan: what it serves now.
        state: how far it is.
        started: seconds since 1970.
        services: its tunnels, in the order of the plan.
    """

    def __init__(
        self, plan: Plan, services: Sequence[Service], engines: dict[str, tuple[str, str]], *, worker: int = 0, workers: int = 1
    ) -> None:
        self.plan = plan
        self.state = State.STARTING
        self.started: Final = time.time()
        self.worker: Final = worker
        self.workers: Final = workers
        self.services = list(services)
        self.engines: Final = engines

    def quit(self) -> None:
        """Stop in order, all workers, as SIGTERM does: the signal goes where an operator would send it."""
        os.kill(_head or (os.getppid() if self.workers > 1 else os.getpid()), signal.SIGTERM)


_head: int | None = None


def stop_through(pid: int) -> None:
    """Whoever ends this proxy is to send the signal to process `pid`, which ends it in its turn."""
    global _head
    _head = pid


class Companion(Protocol):
    """What is served beside the tunnels, in the same loop."""

    def forked(self, worker: int | None) -> None:
        """Behind a fork: keep only what this process needs.

        Args:
            worker: which one this is; None is the parent, which serves nothing.
        """

    async def serve(self, running: Running) -> None:
        """Serve until cancelled. What it raises is logged, and the tunnels go on."""
