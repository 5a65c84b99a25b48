"""One intercepted connection: its destination decides where it goes."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
import trio

from stcp_proxy.config import TunnelPlan
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.original import Interception, make_transparent
from stcp_proxy.net.own_connections import check_mark
from stcp_proxy.net.transparent import check_transparent
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.plain_leg import reset_on_close
from stcp_proxy.session.access_rule import RouteRules, Rules
from stcp_proxy.session.connect import ConnectSession
from stcp_proxy.session.listen import Gate
from stcp_proxy.session.pass_through import pass_on
from stcp_proxy.session.peer_leg import Keeper
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.routes import InTheClear, Router, Way

_log = structlog.get_logger("stcp_proxy.intercept")

_AT_ONCE: Final = 0.005
"""Seconds below which the search for a route is not subtracted; also the shortest time that is left for connecting."""


def check(plan: TunnelPlan) -> None:
    """Check that this process has the privileges that a plan needs.

    Raises:
        ConfigError: a privilege is missing.
    """
    if plan.hand_on.transparent or any(service.hand_on.transparent for service in plan.services.values()):
        check_transparent()
    if plan.intercept is None:
        return
    if plan.intercept.capture.mark is not None:
        check_mark(plan.intercept.capture.mark)
    if needs_transparent(plan):
        with socket.socket() as probe:
            make_transparent(probe)


def needs_transparent(plan: TunnelPlan) -> bool:
    """Whether listening sockets have to accept for addresses that are not this host's."""
    return plan.intercept is not None and plan.intercept.capture.how is Interception.TPROXY


def fit(plan: TunnelPlan, listeners: list[socket.socket]) -> None:
    """Prepare listening sockets for the connections that the interception rules redirect to them.

    Raises:
        ConfigError: a privilege is missing.
    """
    check(plan)
    if needs_transparent(plan):
        for listener in listeners:
            make_transparent(listener)
    if plan.intercept is not None and plan.intercept.pass_unmatched:
        _log.warning("unmatched connections leave this host unencrypted", tunnel=plan.name, why="'unmatched: pass-in-the-clear'")


class InterceptGate(Gate, Rules, Protocol):
    """The tunnel of an intercepted connection."""


class InterceptSession:
    """The initiator's side of one connection that rules sent here.

    Args:
        plan: the tunnel.
        router: its routes.
        engine: carries the connection after the handover.
        plain: the accepted socket, non-blocking; owned by the session.
        record: the record of the connection.
        gate: learns when the connection needs no handshake; has the access rule in force.
        legs: holds wire legs between their connections.
        ways: gives the routes in force, which a reload may have replaced. [default: those of `router`]
    """

    def __init__(
        self,
        plan: TunnelPlan,
        router: Router,
        engine: Engine,
        plain: socket.socket,
        record: Connection,
        gate: InterceptGate,
        legs: Keeper | None = None,
        ways: Callable[[], Sequence[Way]] | None = None,
    ) -> None:
        self._ways = ways or (lambda: router.ways)
        self._legs = legs
        self._plan = plan
        self._router = router
        self._engine = engine
        self._plain = plain
        reset_on_close(plain)
        self._record = record
        self._gate = gate

    async def run(self) -> None:
        """Bring the connection to its handover, or to its end where it is passed on unencrypted.

        Raises:
            StcpError: the connection was refused; the application got a TCP RST.
        """
        started = trio.current_time()
        try:
            way = await self._router.find(self._plain)
        except BaseException:
            LegStream(self._plain).reset()
            raise
        plan = _less_time(self._plan, trio.current_time() - started)
        if isinstance(way, InTheClear):
            self._record.original = str(way.original)
            self._record.in_the_clear = True
            self._gate.proved(self._record)
            await pass_on(plan, LegStream(self._plain), way.original, self._router.own, self._record)
            return
        self._record.original = str(way.opening.original)
        self._record.service = way.opening.service or ""
        engine, plain, record = self._engine, self._plain, self._record
        rules = RouteRules(way, self._ways, self._gate)
        session = ConnectSession(plan, way.trust, way.targets, engine, plain, record, way.opening, self._legs, rules)
        await session.run()


def _less_time(plan: TunnelPlan, seconds: float) -> TunnelPlan:
    """The plan for one connection whose route took `seconds` to find: the search counts as a part of `dial_timeout`."""
    if seconds < _AT_ONCE:
        return plan
    return dataclasses.replace(plan, dial_timeout=max(plan.dial_timeout - seconds, _AT_ONCE))
