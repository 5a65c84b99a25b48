"""Let connections finish: after a stop, and after a new process has taken over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog
import trio

from stcp_proxy.config import Mode
from stcp_proxy.handshake.exchange import LINGER
from stcp_proxy.process import sd_notify, signals
from stcp_proxy.tunnel.tunnels import Tunnels

_log = structlog.get_logger("stcp_proxy.supervisor")

GRACE: Final = LINGER + 1.0
"""Seconds for RESET and REJECT to get out after the drain."""
LAST_SPANS: Final = 5.0
"""Seconds for the exporter to end after that. It sends spans for three of them at most, and may just have been started."""


async def drain(
    tunnels: Tunnels, received: AsyncIterator[int], name: str, handshakes: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Take nothing new and let connections finish, until the deadline or a second signal.

    Args:
        tunnels: what this process serves.
        received: the signals that arrive.
        name: the first signal, for the log.
        handshakes: waits for the handshakes of kernel sockets; None without an agent.
    """
    plan = tunnels.plan
    keep = plan.drain_outbound == "keep"
    await tunnels.stop_accepting(Mode.LISTEN)
    if not keep:
        await tunnels.stop_accepting(Mode.CONNECT)
    _log.info(
        "stopping", signal=name, open=tunnels.open_connections, drain_seconds=plan.drain, drain_outbound=plan.drain_outbound
    )
    seconds = plan.drain + 2 * GRACE + (LAST_SPANS if plan.otlp is not None else 0.0)
    sd_notify.stopping(f"{tunnels.open_connections} connections may finish", seconds=seconds)

    async def second_signal(scope: trio.CancelScope) -> None:
        await _stop_signal(received)
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
            if handshakes is not None:
                await handshakes()
            nursery.cancel_scope.cancel()


async def drain_replaced(tunnels: Tunnels, received: AsyncIterator[int], watch: Callable[[], Awaitable[None]]) -> int | None:
    """Let connections finish while a new process serves, until the deadline or a stop. Handshakes under way go on.

    Args:
        tunnels: what this process served; their listening sockets are closed.
        received: the signals that arrive.
        watch: follows revocations until it is cancelled.

    Returns:
        The signal that stops this process; None when all connections have finished, or the deadline is over.
    """
    plan = tunnels.plan
    _log.info("draining: a new process serves", open=tunnels.open_connections, drain_seconds=plan.takeover_drain)
    came: list[int] = []

    async def stop(scope: trio.CancelScope) -> None:
        came.append(await _stop_signal(received))
        scope.cancel()

    with trio.move_on_after(plan.takeover_drain) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, scope)
            nursery.start_soon(watch)
            await tunnels.wait_idle()
            nursery.cancel_scope.cancel()
    return came[0] if came else None


async def _stop_signal(received: AsyncIterator[int]) -> int:
    """The next signal that stops; others are logged."""
    while (number := await anext(received)) in (signals.RELOAD, signals.REPLACE):
        _log.warning("the file is not read again: this proxy is stopping")
    return number
