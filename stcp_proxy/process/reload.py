"""Reload: read the configuration again while everything runs, and apply it whole or not at all.

    read the file -> compare with what runs -> prepare (engines, listening sockets) -> commit

Everything that can fail comes before the first thing that serves is touched, so a file with a mistake, a key that cannot be read
or an address that is taken keep the old state completely. A child process reads; connections do not wait for it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.config.diff import PlanDiff, difference
from stcp_proxy.counters import Reloads
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.logs import log
from stcp_proxy.process import sd_notify
from stcp_proxy.process.companion_change import Change, Changing
from stcp_proxy.process.kernel_agent import check_same
from stcp_proxy.process.reload_losses import check_losses
from stcp_proxy.session.handover import stopping
from stcp_proxy.tunnel.tunnels import Tunnels

_log = structlog.get_logger("stcp_proxy.reload")

Read = Callable[[], Callable[[], Plan]]
"""Starts to read the configuration again, and returns a function that waits for the plan.

Raises:
    ConfigError: with every mistake that was found; either call may raise it.
"""


RESTART: Final = {
    "workers": "the number of processes",
    "takeover": "the socket for a takeover",
    "sandbox": "the sandbox",
}
"""Settings that only a restart can change, with their description."""


_MOST_IN_A_LINE: Final = 20
"""Entries of one kind in the log line of a reload."""


class Reloader:
    """Applies the file as it is now.

    Args:
        tunnels: what runs.
        read: reads the file; None where there is nothing to read.
        beside: what is served beside the tunnels; None for nothing.

    Attributes:
        count: how often.
        read: reads the file.
        after: called after each reload, in Trio's thread.
        stopping: whether this process drains: then nothing is reloaded, whoever asks.
    """

    def __init__(self, tunnels: Tunnels, read: Read | None, beside: Changing | None = None) -> None:
        self.count: Final = Reloads()
        self.after: Final[list[Callable[[], None]]] = []
        self._tunnels = tunnels
        self.read: Final = read
        self._beside = beside
        self._one_at_a_time = trio.Lock()
        self._waiting = False
        self.stopping = False

    async def ask(self, *, force: bool = False) -> PlanDiff:
        """Reload for a caller that may be cancelled meanwhile: a reload that has begun is completed.

        Args:
            force: see `compared`.

        Raises:
            StcpError: why it was refused; nothing has changed.
        """
        done = trio.Event()
        came: list[PlanDiff | Exception] = []

        async def work() -> None:
            try:
                came.append(await self.reload(force=force))
            except Exception as exc:
                came.append(exc)
            finally:
                done.set()

        self._tunnels.spawn(work)
        await done.wait()
        if not came:
            raise stopping()
        if isinstance(came[0], Exception):
            raise came[0]
        return came[0]

    async def hear(self) -> None:
        """Reload for SIGHUP and log the result. Signals that arrive while a reload waits are merged into it."""
        if self._waiting:
            return
        self._waiting = True
        with contextlib.suppress(Exception):  # it is in the log, and the tunnels go on as before
            await self.reload()

    def done(self, what: str) -> None:
        """Count a reload that was applied, and answer its callers.

        Args:
            what: the change, in lines for a person.
        """
        self.count.add(ok=True, what=what)
        for call in self.after:
            call()

    async def serve(self) -> None:
        """Exchange messages with other processes. A single process has nothing to do."""

    @property
    def now(self) -> Plan:
        """The plan in force, of all workers together."""
        return self._tunnels.plan

    async def compare(self, *, force: bool = False) -> PlanDiff:
        """What a reload would change now.

        Args:
            force: see `compared`.

        Raises:
            StcpError: it would be refused, and why.
        """
        return (await self._plan(force=force))[1]

    async def reload(self, *, force: bool = False) -> PlanDiff:
        """Read the file and apply it.

        Args:
            force: see `compared`.

        Returns:
            What has changed.

        Raises:
            StcpError: why it was refused; nothing has changed.
        """
        async with self._one_at_a_time:
            self._waiting = False
            sd_notify.reloading()
            try:
                plan, diff = await self._plan(force=force)
                admin = await self._prepared_admin(plan)
                try:
                    change = await self._tunnels.prepare(plan)
                except BaseException:
                    if admin is not None:
                        admin.close()
                    raise
            except Exception as exc:
                self.count.add(ok=False, what=exc.what if isinstance(exc, StcpError) else type(exc).__name__)
                log_refused(exc)
                raise
            finally:
                sd_notify.ready(self._tunnels.status)
            await self._tunnels.commit(change)
            log.change(plan.log)
            if admin is not None:
                admin.commit()
            self.done("\n".join(diff.lines()))
            _log.info("reloaded", **summary(diff))
            return diff

    async def _plan(self, *, force: bool) -> tuple[Plan, PlanDiff]:
        if self.stopping:
            raise stopping()
        if self.read is None:
            raise no_file()
        plan = await trio.to_thread.run_sync(self.read(), abandon_on_cancel=True)
        return plan, compared(self.now, plan, force=force)

    async def _prepared_admin(self, plan: Plan, given: Sequence[socket.socket] | None = None) -> Change | None:
        """The change of the admin address that a plan brings; None for no change."""
        if self._beside is None:
            return None
        return await trio.to_thread.run_sync(self._beside.prepare, plan, given)


def no_file() -> ConfigError:
    """The refusal to reload a proxy that was started from flags."""
    return ConfigError("this proxy was not started from a file", remedy="start it again to change it")


def compared(old: Plan, new: Plan, *, force: bool = False) -> PlanDiff:
    """The difference between two plans, if it can be applied while the proxy runs.

    Args:
        old: what runs.
        new: what was read.
        force: whether `check_losses` is left out.

    Raises:
        ConfigError: it takes a new start.
    """
    diff = difference(old, new)
    for setting in diff.settings:
        if setting.name in RESTART:
            before, after = setting.words()
            what = f"{setting.name} is {after} in the file and {before} here: only a new start changes {RESTART[setting.name]}"
            raise ConfigError(what, remedy=f"set {setting.name} back to {before}, or restart")
    check_same(old, new)
    if not force:
        check_losses(old, new)
    return diff


def summary(diff: PlanDiff) -> dict[str, Any]:
    """A difference as fields of a log line, without empty ones; long lists are shortened."""
    return {name: _beginning(value) for name, value in diff.as_json().items() if value}


def _beginning(value: Any) -> Any:
    """The first entries of a list or mapping, and the number of the others; `stcp-proxy reload` prints all."""
    more = len(value) - _MOST_IN_A_LINE
    if more <= 0:
        return value
    if isinstance(value, dict):
        return dict(itertools.islice(value.items(), _MOST_IN_A_LINE)) | {"": f"and {more} more"}
    return [*value[:_MOST_IN_A_LINE], f"and {more} more"]


def log_refused(exc: Exception) -> None:
    """Log that a reload was refused, and why."""
    if isinstance(exc, StcpError):
        remedy = {"remedy": exc.remedy} if exc.remedy else {}
        _log.error("reload refused: everything goes on as before", why=exc.what, **remedy)
    else:
        why = f"{type(exc).__name__}: {exc}"
        _log.error("reload refused: everything goes on as before", why=why, exc_info=exc)


def workers_status(plan: Plan) -> str:
    """One line for the service manager."""
    return f"{len(plan.tunnels)} tunnels listen, {plan.workers} workers"
