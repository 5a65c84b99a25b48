"""All tunnels of a process: start, signals, drain.

Nurseries mirror lifetimes: listeners in one, connections in another. A stop cancels the first, gives the second its deadline,
tells what is left "shutting down", and only then closes the engines.
"""

from __future__ import annotations

import dataclasses
import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

import structlog
import trio

from stcp_proxy.config import Plan
from stcp_proxy.errors import Code
from stcp_proxy.relay import inloop
from stcp_proxy.relay.choice import choose
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.tunnel import log, notify, repeats, workers
from stcp_proxy.tunnel.exchange import LINGER
from stcp_proxy.tunnel.record import Totals
from stcp_proxy.tunnel.running import Companion, Running, State
from stcp_proxy.tunnel.service import Service

_log = structlog.get_logger("stcp_proxy.supervisor")

_COLLECT_AFTER: Final = 20_000
"""Objects, net, between two collections: some two hundred connections' worth."""
_GRACE: Final = LINGER + 1.0
"""Seconds for RESET and REJECT to get out after the drain."""


def run(plan: Plan, beside: Companion | None = None) -> int:
    """Serve `plan` until SIGTERM or SIGINT; see `stcp_proxy.tunnel.run`.

    Raises:
        StcpError: it could not start.
    """
    log.configure(plan.log)
    notify.attach()
    if plan.workers > 1:

        def work(share: Plan, listeners: workers.Listeners, totals: Callable[[Totals], None], number: int) -> int:
            return trio.run(partial(serve, share, listeners, totals, beside=beside, worker=number, workers=plan.workers))

        return workers.run(plan, work, forked=None if beside is None else beside.forked)
    status = trio.run(partial(serve, plan, beside=beside))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # all is done: a late signal must not spoil the status
    return status


async def serve(
    plan: Plan,
    listeners: Sequence[list[socket.socket]] | None = None,
    totals: Callable[[Totals], None] | None = None,
    *,
    beside: Companion | None = None,
    worker: int = 0,
    workers: int = 1,
) -> int:
    """The same inside a running Trio, in this process.

    Args:
        plan: what to serve.
        listeners: listening sockets for each tunnel of the plan, where they exist already; owned by this call.
        totals: told at the end what has been done.
        beside: what is served in the same loop, from start to end.
        worker: number of this process among several.
        workers: how many they are.

    Returns:
        The exit status.
    """
    _raise_descriptor_limit()
    engines: dict[str, Engine] = {}
    reasons: dict[str, tuple[str, str]] = {}
    for choice in {tunnel.engine for tunnel in plan.tunnels}:
        engine, why = _choose(choice)
        reasons[choice] = (engine.name, why)
        engines[choice] = next((known for known in engines.values() if known.name == engine.name), engine)
    services = [Service(tunnel, engines[tunnel.engine]) for tunnel in plan.tunnels]
    running = Running(plan, services, reasons, worker=worker, workers=workers)
    try:
        # The pump looks for Trio's epoll set, and finds it while there is no other.
        for engine in sorted(set(engines.values()), key=lambda engine: not isinstance(engine, PumpEngine)):
            if isinstance(engine, PumpEngine):
                inloop.start(engine)
            else:
                engine.start()
        for number, service in enumerate(services):
            service.open(listeners[number] if listeners is not None else None)
        async with notify.watchdog(), repeats.telling(log.REPEATS), trio.open_nursery() as companions:
            if beside is not None:
                companions.start_soon(_accompany, beside, running)
            await _serve(plan, services, running)
            companions.cancel_scope.cancel()
    finally:
        for service in services:
            service.close()
        for engine in engines.values():
            engine.close()
        if totals is not None:
            totals(_sum(services))
    return 0


def _choose(choice: str) -> tuple[Engine, str]:
    engine, why = choose(choice)
    _log.info("engine", choice=str(choice), engine=engine.name, why=why)
    return engine, why


async def _accompany(beside: Companion, running: Running) -> None:
    """Serve what is beside the tunnels; its failure is not theirs."""
    try:
        await beside.serve(running)
    except Exception as exc:
        _log.error("what is served beside the tunnels failed", why=f"{type(exc).__name__}: {exc}", exc_info=exc)


async def _serve(plan: Plan, services: list[Service], running: Running) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as listeners:
                for service in services:
                    listeners.start_soon(service.accept, connections)
                _settle_memory()
                running.state = State.READY
                _log.info("ready", tunnels=len(services))
                notify.ready(f"{len(services)} tunnels listen")
                number = await anext(signals)
                running.state = State.DRAINING
                listeners.cancel_scope.cancel()
            for service in services:
                service.close()
            _log.info("stopping", signal=signal.Signals(number).name, open=_open(services), drain_seconds=plan.drain)
            notify.stopping(f"{_open(services)} connections may finish", seconds=plan.drain + 2 * _GRACE)
            await _drain(services, plan.drain, signals)
            left = _open(services)
            for service in services:
                service.abort(Code.SHUTTING_DOWN, "")
            connections.cancel_scope.cancel()
        with trio.move_on_after(_GRACE):
            await _wait_idle(services)
        _log.info("stopped", cut_off=left, **dataclasses.asdict(_sum(services)))


async def _drain(services: list[Service], seconds: float, signals: AsyncIterator[int]) -> None:
    """Let connections finish, until the deadline or a second signal."""

    async def second_signal(scope: trio.CancelScope) -> None:
        await anext(signals)
        _log.info("a second signal: stopping at once")
        scope.cancel()

    with trio.move_on_after(seconds) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second_signal, scope)
            for service in services:
                nursery.start_soon(service.turn_strangers_away)
            await _wait_idle(services)
            nursery.cancel_scope.cancel()


async def _wait_idle(services: list[Service]) -> None:
    for service in services:
        await service.wait_idle()


def _sum(services: list[Service]) -> Totals:
    done = Totals()
    for service in services:
        done.add(service.totals)
    return done


def _open(services: list[Service]) -> int:
    return sum(service.open_connections for service in services)


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
