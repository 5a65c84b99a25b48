"""A proxy that runs, as whatever is served beside its tunnels sees it."""

from __future__ import annotations

import enum
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from stcp_proxy.config import Plan
from stcp_proxy.config.diff import apply
from stcp_proxy.counters import Reloads
from stcp_proxy.errors import ConfigError, ShuttingDown
from stcp_proxy.logs import log
from stcp_proxy.process.lifetimes_check import LifetimesCheck
from stcp_proxy.process.reload import Reloader
from stcp_proxy.process.rules_check import RulesCheck, ask, captured, warning
from stcp_proxy.spans import sink
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.tunnel.tunnels import Tunnels


class State(enum.StrEnum):
    """How far a process is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Running:
    """One process that serves: its tunnels, and what can be asked of it.

    Args:
        tunnels: what it serves.
        reloader: reads the configuration again.
        worker: its number among the workers.
        workers: how many there are.

    Attributes:
        state: how far it is.
        started: seconds since 1970.
        lifetimes_check: warns of certificates that should have been renewed.
        rules_check: knows which rules of interception the host has.
    """

    def __init__(self, tunnels: Tunnels, reloader: Reloader, *, worker: int = 0, workers: int = 1) -> None:
        self.state = State.STARTING
        self.started: Final = time.time()
        self.worker: Final = worker
        self.workers: Final = workers
        self._tunnels = tunnels
        self._reloader = reloader
        self.lifetimes_check: Final = LifetimesCheck(lambda: tunnels.plan)
        self.rules_check: Final = RulesCheck(lambda: tunnels.plan, loud=worker == 0)

    @property
    def plan(self) -> Plan:
        """What it serves now."""
        return self._tunnels.plan

    @property
    def tunnels(self) -> list[Tunnel]:
        """Its tunnels in the order of the plan, and behind them those that were removed and still have connections."""
        names = {tunnel.plan.name for tunnel in self._tunnels.serving}
        return [*self._tunnels.serving, *(old for old in self._tunnels.draining if old.plan.name not in names)]

    @property
    def engines(self) -> dict[str, tuple[str, str]]:
        """For each configured choice, the engine's name and why it is that one."""
        return self._tunnels.engines.reasons

    @property
    def rules(self) -> str:
        """Which rules of interception the host has; empty without interception, and before the first look."""
        found = self.rules_check.found
        return found.rules if found is not None else ""

    @property
    def egress_filter(self) -> tuple[str, tuple[str, ...]]:
        """The state of the egress filter, and the interfaces that it is about; empty where it is not wanted."""
        found = self.rules_check.found
        return ("", ()) if found is None else (found.egress, found.interfaces)

    @property
    def log_lines_dropped(self) -> int:
        """Log lines that could not be written without waiting."""
        return log.dropped_lines()

    @property
    def spans(self) -> dict[str, int]:
        """What became of the spans; empty where none are wanted. The first worker process says what the exporter did for all."""
        if (to := sink.current()) is None:
            return {}
        if self.worker != 0:
            return {"dropped": to.dropped}
        results = to.results
        return {"exported": results.exported, "failed": results.failed, "dropped": to.dropped}

    @property
    def reloads(self) -> Reloads:
        """Readings of the configuration since the start."""
        return self._reloader.count

    async def reload(self, *, check: bool, force: bool = False) -> dict[str, Any]:
        """Read the configuration again.

        Args:
            check: only compare it with what runs.
            force: also take away more than half of the tunnels, peers or authorities.

        Returns:
            The difference: as data, and as ``lines`` for a person.

        Raises:
            StcpError: it is refused, and why; nothing has changed.
        """
        if self.state is not State.READY:
            raise ShuttingDown(f"this proxy is {self.state}", remedy="ask again when it is ready")
        diff = await (self._reloader.compare(force=force) if check else self._reloader.ask(force=force))
        capture = captured(apply(diff, self.plan))
        rules = [] if capture is None else warning(await ask(capture))
        await self.rules_check.look()
        return diff.as_json() | {"lines": [*diff.lines(), *rules]}

    def after_reload(self, call: Callable[[], None]) -> None:
        """Have `call` called after each reload, in Trio's thread."""
        self._reloader.after.append(call)

    def quit(self) -> None:
        """Stop in order, all workers, as SIGTERM does: the signal goes where an operator would send it."""
        os.kill(_head or (os.getppid() if self.workers > 1 else os.getpid()), signal.SIGTERM)


_head: int | None = None


def stop_through(pid: int) -> None:
    """Whoever ends this proxy is to send the signal to process `pid`, which ends it in its turn."""
    global _head
    _head = pid


def check_replaceable() -> None:
    """Refuse a takeover where the end of this process is the end of more than itself.

    Raises:
        ConfigError: it is.
    """
    if _head is not None:
        what = "an application runs beside this proxy, and ends with it"
        raise ConfigError(what, remedy="restart both, or roll out a new container beside this one")
    if os.getpid() == 1:
        what = "this proxy is process 1, and its container ends with it"
        raise ConfigError(what, remedy="roll out a new container beside this one")
