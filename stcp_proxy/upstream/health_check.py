"""Health checks: whether an endpoint answers, found out without an application's connection.

An unhealthy endpoint that could not be reached is checked after its pause, and used again as soon as it answers. With
`health.interval` every endpoint is checked that often, unless a connection has reached it within the interval. An endpoint that
fails is then marked unhealthy before a connection needs it.

A health check has no effect on the other side: it connects to a target, or completes a handshake with a peer. A failure behind
that (the target of a peer is down) is seen by connections alone.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from stcp_proxy.config import HealthPlan, Mode, TunnelPlan
from stcp_proxy.errors import StcpError
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.net.dial import Failure, SocketAddress, connect, summary
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.proxy_header import ProxyHeader, Version, encode_header
from stcp_proxy.upstream.endpoint import Endpoint
from stcp_proxy.upstream.targets import Targets

_LOCAL_PAUSE: Final = 1.0
"""Seconds until the next check of an unhealthy endpoint, when this machine lacked descriptors, memory or ports for the last."""
_JITTER: Final = 0.2
"""Random part of an interval, so that many proxies do not check at once."""

Check = Callable[[SocketAddress, float], Awaitable[None]]
"""Takes an address and a number of seconds; raises StcpError unless the address answers in that time."""


def check_for(plan: TunnelPlan, trust: Trust, header: Version | None = None) -> Check:
    """The health check for targets of a tunnel: a handshake with a peer, a connection to a target.

    Args:
        plan: the tunnel.
        trust: its access rule.
        header: the version of the PROXY header that the targets expect; None for none.
    """

    async def target(address: SocketAddress, timeout: float) -> None:
        await greet(await _connected(address, timeout), header)

    async def peer(address: SocketAddress, timeout: float) -> None:
        made = await authenticate(
            lambda: _connected(address, timeout), plan, trust, address=str(address), timeout=min(timeout, plan.handshake_timeout)
        )
        made.stream.close()

    return peer if plan.mode is Mode.CONNECT else target


async def greet(sock: socket.socket, header: Version | None) -> None:
    """Send a PROXY header without a client, as the format has it for health checks, and close.

    A target that expects a header would log an error for a connection that ends without one.

    Args:
        sock: connected to a target; owned by this function.
        header: the version of the header; None for none.
    """
    stream = LegStream(sock)
    try:
        if header is not None:
            await stream.send_all(encode_header(ProxyHeader(), header))
    except trio.BrokenResourceError:
        return  # it has accepted the connection, and that was the question
    finally:
        stream.close()


async def _connected(address: SocketAddress, timeout: float) -> socket.socket:
    sock = await connect(address, trio.current_time() + timeout)
    if isinstance(sock, Failure):
        raise summary([address], [sock])
    return sock


class HealthChecker:
    """Runs the health checks of one set of targets.

    Args:
        targets: the targets.
        check: one health check.
        health: interval and deadline.
    """

    def __init__(self, targets: Targets, check: Check, health: HealthPlan) -> None:
        self._targets = targets
        self._check = check
        self._health = health
        self._under_way: set[Endpoint] = set()
        self._checked_at: dict[Endpoint, float] = {}

    async def run(self) -> None:
        """Run health checks until cancelled."""
        targets = self._targets
        targets.has_checks, targets.checks_all = True, self._health.interval is not None
        try:
            async with trio.open_nursery() as nursery:
                if self._health.interval is not None:
                    nursery.start_soon(self._follow_names, self._health.interval)
                while True:
                    with trio.move_on_at(self._start_due(nursery)):
                        await targets.changed.park()
        finally:
            targets.has_checks = targets.checks_all = False
            for endpoint in targets.endpoints:
                endpoint.left_to_check = False  # no check comes any more: a connection has to try it

    def _start_due(self, nursery: trio.Nursery) -> float:
        """Start the checks that are due. Returns the time of the next one."""
        now, following = trio.current_time(), float("inf")
        for endpoint in self._targets.endpoints:
            if endpoint not in self._under_way:
                due = self._due(endpoint)
                if due <= now:
                    self._under_way.add(endpoint)
                    nursery.start_soon(self._run_check, endpoint)
                else:
                    following = min(following, due)
        return following

    def _due(self, endpoint: Endpoint) -> float:
        if endpoint.failures:
            return endpoint.until if endpoint.left_to_check else float("inf")
        if self._health.interval is None:
            return float("inf")
        last = max(endpoint.reached_at, self._checked_at.get(endpoint, float("-inf")))
        return last + self._health.interval

    async def _run_check(self, endpoint: Endpoint) -> None:
        started = trio.current_time()
        try:
            await self._check(endpoint.address, self._health.timeout)
        except StcpError as exc:
            if exc.judgement.blames_endpoint:
                self._targets.note_failure(endpoint, exc, since=started)
            else:
                endpoint.until = trio.current_time() + _LOCAL_PAUSE
        else:
            if not endpoint.failures or endpoint.left_to_check:
                self._targets.note_reached(endpoint)
        finally:
            self._under_way.discard(endpoint)
            self._note(endpoint)
            self._targets.changed.unpark_all()

    def _note(self, endpoint: Endpoint) -> None:
        if self._health.interval is not None:
            early = self._health.interval * _JITTER * random.random()  # noqa: S311  (no secret)
            known = set(self._targets.endpoints)
            self._checked_at = {each: at for each, at in self._checked_at.items() if each in known}
            self._checked_at[endpoint] = trio.current_time() - early

    async def _follow_names(self, interval: float) -> None:
        """Look names up although no connection asks for them, so that their endpoints are known."""
        while True:
            for address in self._targets.to:
                await self._targets.look_up(address, trio.current_time() + interval)
            self._targets.changed.unpark_all()
            await trio.sleep(interval)
