"""Probes: whether a target answers, found out without an application's connection.

What was set aside because it could not be reached is probed when its pause is over, and used again at once when it answers. So no
connection has to find out. Where `health.interval` says so, every target is probed that often, unless connections show anyway
that it answers; then one that fails is set aside before anybody needs it.

A probe comes as far as it can without an effect on the other side: a TCP connection to a target, a handshake with a peer. What
goes wrong behind that (a peer whose own target is down) only a connection can tell.
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
"""Part of an interval that is left to chance, so that many proxies do not probe at once."""

Check = Callable[[SocketAddress, float], Awaitable[None]]
"""Whether there is an answer at a place within so many seconds; raises StcpError where there is none."""


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
    """Probes the targets of one tunnel.

    Args:
        targets: whom.
        check: how.
        health: how often.
    """

    def __init__(self, targets: Targets, check: Check, health: HealthPlan) -> None:
        self._targets = targets
        self._check = check
        self._health = health
        self._under_way: set[Endpoint] = set()
        self._probed_at: dict[Endpoint, float] = {}

    async def run(self) -> None:
        """Probe until cancelled."""
        targets = self._targets
        targets.has_probes, targets.is_watched = True, self._health.interval is not None
        try:
            async with trio.open_nursery() as nursery:
                if self._health.interval is not None:
                    nursery.start_soon(self._follow_names, self._health.interval)
                while True:
                    with trio.move_on_at(self._start_due(nursery)):
                        await targets.changed.park()
        finally:
            targets.has_probes = targets.is_watched = False
            for endpoint in targets.endpoints:
                endpoint.probed = False  # connections have to find out

    def _start_due(self, nursery: trio.Nursery) -> float:
        """Start the probes whose time has come. Returns when the next one's does."""
        now, following = trio.current_time(), float("inf")
        for endpoint in self._targets.endpoints:
            if endpoint not in self._under_way:
                due = self._due(endpoint)
                if due <= now:
                    self._under_way.add(endpoint)
                    nursery.start_soon(self._probe, endpoint)
                else:
                    following = min(following, due)
        return following

    def _due(self, endpoint: Endpoint) -> float:
        if endpoint.failures:
            return endpoint.until if endpoint.probed else float("inf")
        if self._health.interval is None:
            return float("inf")
        last = max(endpoint.reached_at, self._probed_at.get(endpoint, float("-inf")))
        return last + self._health.interval

    async def _probe(self, endpoint: Endpoint) -> None:
        started = trio.current_time()
        try:
            await self._check(endpoint.address, self._health.timeout)
        except StcpError as exc:
            if exc.judgement.blames_endpoint:
                self._targets.note_failure(endpoint, exc, since=started)
            else:
                endpoint.until = trio.current_time() + _LOCAL_PAUSE
        else:
            if not endpoint.failures or endpoint.probed:
                self._targets.note_reached(endpoint)
        finally:
            self._under_way.discard(endpoint)
            self._note(endpoint)
            self._targets.changed.unpark_all()

    def _note(self, endpoint: Endpoint) -> None:
        if self._health.interval is not None:
            early = self._health.interval * _JITTER * random.random()  # noqa: S311  (no secret)
            known = set(self._targets.endpoints)
            self._probed_at = {each: at for each, at in self._probed_at.items() if each in known}
            self._probed_at[endpoint] = trio.current_time() - early

    async def _follow_names(self, interval: float) -> None:
        """Know the addresses behind names although no connection asks for them."""
        while True:
            for address in self._targets.to:
                await self._targets.look_up(address, trio.current_time() + interval)
            self._targets.changed.unpark_all()
            await trio.sleep(interval)
