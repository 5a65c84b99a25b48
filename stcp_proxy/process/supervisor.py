"""A process that serves: start, signals, drain.

Nurseries mirror lifetimes: listeners in one, connections in another. A stop cancels the first, gives the second its deadline,
tells what is left "shutting down", and only then closes the engines.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import structlog
import trio

from stcp_proxy.config import Mode, Plan
from stcp_proxy.handshake.exchange import LINGER
from stcp_proxy.logs import log, rate_limit
from stcp_proxy.net import socket_activation
from stcp_proxy.process import sd_notify, signals, workers
from stcp_proxy.process.reload import OpenAdmin, Read, Reloader
from stcp_proxy.process.reload_worker import ReloadWorker
from stcp_proxy.process.running import Companion, Running, State
from stcp_proxy.process.running_clock import RunningClock
from stcp_proxy.process.terminal import Terminal
from stcp_proxy.process.watch import Watcher
from stcp_proxy.session.handover import stopping
from stcp_proxy.session.record import Totals
from stcp_proxy.tunnel.tunnels import Tunnels

_log = structlog.get_logger("stcp_proxy.supervisor")

_COLLECT_AFTER: Final = 20_000
"""Objects, net, between two collections: some two hundred connections' worth."""
_RULES_PATIENCE: Final = 2.0
"""Seconds to look at the rules of interception before the proxy is ready."""
_GRACE: Final = LINGER + 1.0
"""Seconds for RESET and REJECT to get out after the drain."""


def run(plan: Plan, read: Read | None = None, beside: Companion | None = None, open_admin: OpenAdmin | None = None) -> int:
    """Serve `plan` until SIGTERM or SIGINT; see `stcp_proxy.process.run`.

    Raises:
        StcpError: it could not start.
    """
    signals.hold()
    log.configure(plan.log)
    sd_notify.attach()
    given = socket_activation.assign(socket_activation.take(), [(tunnel.name, tunnel.bind) for tunnel in plan.tunnels])
    if plan.workers > 1:

        def work(setup: workers.WorkerSetup) -> int:
            def follow(tunnels: Tunnels) -> ReloadWorker:
                return ReloadWorker(tunnels, read, plan, setup.link, setup.number)

            share = partial(serve, setup.plan, None, setup.listeners, setup.tell, worker=setup.number, workers=plan.workers)
            return _run(partial(share, beside=beside, follow=follow))

        return workers.run(plan, work, read=read, given=given, forked=None if beside is None else beside.forked)
    return _run(partial(serve, plan, read, given, beside=beside, open_admin=open_admin))


def _run(work: Callable[[], Awaitable[int]]) -> int:
    """Run Trio by a clock that leaves out the time in which this process does not run."""
    clock = RunningClock()
    return trio.run(work, clock=clock, instruments=[clock])


async def serve(
    plan: Plan,
    read: Read | None = None,
    listeners: Sequence[list[socket.socket] | None] | None = None,
    totals: Callable[[Totals], None] | None = None,
    *,
    beside: Companion | None = None,
    worker: int = 0,
    workers: int = 1,
    follow: Callable[[Tunnels], Reloader] | None = None,
    open_admin: OpenAdmin | None = None,
) -> int:
    """The same inside a running Trio, in this process.

    Args:
        plan: what to serve.
        read: reads the configuration again; without it, SIGHUP has no meaning here.
        listeners: listening sockets for each tunnel of the plan, None for one that binds its own; owned by this call.
        totals: told at the end what has been done.
        beside: what is served in the same loop, from start to end.
        worker: number of this process among several.
        workers: how many they are.
        follow: makes what reloads this process together with the others; None where it is alone.
        open_admin: opens an admin address that a reload brings.

    Returns:
        The exit status: 0 when every connection could finish, 1 when some were cut off.
    """
    _raise_descriptor_limit()
    tunnels = Tunnels(plan)
    reloader = Reloader(tunnels, read, open_admin) if follow is None else follow(tunnels)
    running = Running(tunnels, reloader, worker=worker, workers=workers)
    try:
        tunnels.open(listeners)
        async with sd_notify.watchdog(), rate_limit.telling(log.REPEATS), trio.open_nursery() as companions:
            if beside is not None:
                companions.start_soon(_accompany, beside, running)
            reloader.serve_admin = lambda opened: companions.start_soon(_serve_opened, running, opened)
            cut_off = await _serve(tunnels, reloader, running)
            companions.cancel_scope.cancel()
    finally:
        tunnels.close()
        if totals is not None:
            totals(tunnels.totals)
    return 1 if cut_off else 0


async def _serve_opened(running: Running, opened: Any) -> None:
    """Serve an admin address that a reload has opened, and close it at the end."""
    try:
        await _accompany(opened, running)
    finally:
        opened.close()


async def _accompany(beside: Companion, running: Running) -> None:
    """Serve what is beside the tunnels; its failure is not theirs."""
    try:
        await beside.serve(running)
    except Exception as exc:
        _log.error("admin server failed", why=f"{type(exc).__name__}: {exc}", exc_info=exc)


async def _serve(tunnels: Tunnels, reloader: Reloader, running: Running) -> int:
    """Serve until a signal says stop. Returns how many connections were cut off."""
    terminal = Terminal()
    with _signal_receiver() as received:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                tunnels.start(accepting, connections)
                accepting.start_soon(reloader.serve)
                with trio.move_on_after(_RULES_PATIENCE):
                    await running.rules_check.look()  # before "ready" is logged, notified or answered
                accepting.start_soon(running.rules_check.serve)
                if running.worker == 0:
                    accepting.start_soon(running.lifetimes_check.serve)
                    accepting.start_soon(Watcher(reloader).serve)
                _settle_memory()
                running.state = State.READY
                _log.info("ready", tunnels=len(tunnels.serving))
                sd_notify.ready(tunnels.status)
                while (number := await anext(received)) == signals.RELOAD and not terminal.gone:
                    accepting.start_soon(reloader.hear)
                running.state = State.DRAINING
                await _drain(tunnels, received, signals.name(number))
                accepting.cancel_scope.cancel()
            tunnels.stop_listening()
            cut_off = tunnels.unfinished
            tunnels.abort(stopping())
            connections.cancel_scope.cancel()
        with trio.move_on_after(_GRACE):
            await tunnels.wait_idle()
        _log.info("stopped", cut_off=cut_off, **dataclasses.asdict(tunnels.totals))
    return cut_off


@contextlib.contextmanager
def _signal_receiver() -> Iterator[AsyncIterator[int]]:
    """Receive stops and reloads. A signal that comes after the end must not spoil the exit status: it is held back again."""
    with trio.open_signal_receiver(*signals.HANDLED) as received:
        signals.release()
        try:
            yield _Meaningful(received)
        finally:
            signals.hold()


class _Meaningful:
    """Stops and reloads among the signals that arrive; other signals are logged and ignored."""

    def __init__(self, received: AsyncIterator[int]) -> None:
        self._received = received

    def __aiter__(self) -> _Meaningful:
        return self

    async def __anext__(self) -> int:
        while (number := await anext(self._received)) in signals.WITHOUT_MEANING:
            _log.info("signal ignored", signal=signals.name(number), remedy="send SIGHUP to reload, SIGTERM to stop")
        return number


async def _drain(tunnels: Tunnels, received: AsyncIterator[int], name: str) -> None:
    """Take nothing new and let connections finish, until the deadline or a second signal."""
    plan = tunnels.plan
    keep = plan.drain_outbound == "keep"
    await tunnels.stop_accepting(Mode.LISTEN)
    if not keep:
        await tunnels.stop_accepting(Mode.CONNECT)
    _log.info(
        "stopping", signal=name, open=tunnels.open_connections, drain_seconds=plan.drain, drain_outbound=plan.drain_outbound
    )
    sd_notify.stopping(f"{tunnels.open_connections} connections may finish", seconds=plan.drain + 2 * _GRACE)

    async def second_signal(scope: trio.CancelScope) -> None:
        while await anext(received) == signals.RELOAD:
            _log.warning("the file is not read again: this proxy is stopping")
        _log.info("a second signal: stopping at once")
        scope.cancel()

    with trio.move_on_after(plan.drain) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second_signal, scope)
            for tunnel in tunnels.all:
                nursery.start_soon(tunnel.live.dismiss_unauthenticated)
            if keep:
                await tunnels.wait_until_inbound_is_idle()
                await tunnels.stop_accepting(Mode.CONNECT)
            await tunnels.wait_idle()
            nursery.cancel_scope.cancel()


def _raise_descriptor_limit() -> None:
    """Take as many descriptors as the process may: a connection needs two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_memory() -> None:
    """What start-up built stays: keep the collector from walking it again and again, and from coming every few connections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)  # give back what start-up has freed
