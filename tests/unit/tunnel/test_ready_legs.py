"""Legs that a connect tunnel makes ahead: how many, and when it pauses. The peer is a real listen tunnel on loopback."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from stcp_proxy.config import Mode, PskAuth, TunnelPlan
from stcp_proxy.config.plan import KeepPlan
from stcp_proxy.config.value_types import NAME
from stcp_proxy.net.address import Address, TcpAddress
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import READY_SERVICE, Suite
from stcp_proxy.relay.engine import Engine
from stcp_proxy.tunnel import ready_legs
from stcp_proxy.tunnel.tunnel import Tunnel

from .rig import of

NOWHERE = TcpAddress("127.0.0.1", 1)


class NoEngine:
    """No connection comes to an engine."""

    name = "none"
    keeps_legs = True

    def start(self) -> None: ...

    def adopt(self, handover: object, on_end: object) -> Any:
        raise NotImplementedError

    def close(self) -> None: ...


def plan(mode: Mode, to: Address, keep: KeepPlan | None, **more: Any) -> TunnelPlan:
    auth, suites = PskAuth(Secret(bytes(32))), (Suite.CLASSIC_PSK,)
    return TunnelPlan(
        name=mode.value, mode=mode, bind=TcpAddress("127.0.0.1", 0), to=(to,), auth=auth, suites=suites, keep=keep, **more
    )


@asynccontextmanager
async def listening(keep: KeepPlan | None, **more: Any) -> AsyncIterator[tuple[Tunnel, TcpAddress]]:
    tunnel = Tunnel(plan(Mode.LISTEN, NOWHERE, keep, **more), cast("Engine", NoEngine()))
    tunnel.open()
    host, port = tunnel.listeners[0].getsockname()
    try:
        async with trio.open_nursery() as connections:
            connections.start_soon(tunnel.accept, connections)
            yield tunnel, TcpAddress(host, port)
            connections.cancel_scope.cancel()
    finally:
        tunnel.close()


@asynccontextmanager
async def connecting(to: TcpAddress, **keep: Any) -> AsyncIterator[Tunnel]:
    tunnel = Tunnel(plan(Mode.CONNECT, to, KeepPlan(**keep)), cast("Engine", NoEngine()))
    tunnel.open()
    try:
        async with trio.open_nursery() as connections:
            connections.start_soon(tunnel.accept, connections)
            yield tunnel
            connections.cancel_scope.cancel()
    finally:
        tunnel.close()


async def until(what: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not what():  # noqa: ASYNC110  (what it waits for has no event)
            await trio.sleep(0.002)


def use(tunnel: Tunnel, to: TcpAddress) -> object:
    return tunnel.live.trust.choice, f"{to.host}:{to.port}"


async def test_legs_wait_on_both_sides_and_no_target_is_dialled() -> None:
    async with listening(KeepPlan()) as (far, to), connecting(to, ready=3) as near:
        await until(lambda: near.idle_legs == far.idle_legs == 3)
        assert not far.live.all, "a leg at rest is no connection"
        assert not sum(far.ledger.dials.results.values())
        assert not far.ledger.refused
        leg = near.legs.take(use(near, to))
        assert leg is not None
        assert leg.channel.leg.connection == 0
        leg.stream.close()
        await until(lambda: near.idle_legs == 3)  # the one that was taken is replaced


async def test_peer_that_keeps_no_legs_is_asked_once(logs: list[dict[str, Any]]) -> None:
    async with listening(None) as (far, to), connecting(to, ready=2) as near:
        await until(lambda: of(logs, "no wire legs are made ahead"))
        (line,) = of(logs, "no wire legs are made ahead")
        assert line["target"] == f"{to.host}:{to.port}"
        near.legs.removals += 1
        near.legs.changed.unpark_all()  # it looks again, and does not ask
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert far.ledger.accepted == 1
        assert dict(far.ledger.refused_by_reason) == {"unknown_service": 1}
        assert near.idle_legs == 0


@pytest.mark.parametrize("ready", [2, 8])
async def test_peer_without_room_is_asked_less_and_less(ready: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer keeps one leg and ends the older one for each that is new."""
    pauses: list[int] = []
    pause = ready_legs._Peer.pause

    def noted(self: ready_legs._Peer) -> None:
        pause(self)
        pauses.append(self.failures)

    monkeypatch.setattr(ready_legs._Peer, "pause", noted)
    monkeypatch.setattr(ready_legs, "_FIRST_PAUSE", 0.001)
    async with listening(KeepPlan(legs=1)) as (far, to), connecting(to, ready=ready) as near:
        await until(lambda: len(pauses) >= 4)
        assert far.ledger.accepted <= 4 * (ready + 1)
        assert far.idle_legs <= 1
        assert near.idle_legs <= ready


async def test_peer_that_is_down_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_legs, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(ready_legs, "_LOOK", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        to = TcpAddress(*closed.getsockname())
    async with connecting(to, ready=1) as near:
        await until(lambda: near.upstreams.targets.endpoints[0].failures >= 2)
        assert near.idle_legs == 0


async def test_limits_of_a_peer_hold_for_ready_legs() -> None:
    async with listening(KeepPlan(), rate_per_peer=1) as (far, to), connecting(to, ready=3) as near:
        await until(lambda: far.ledger.limits["rate_per_peer"])
        assert near.idle_legs < 3


def test_no_service_of_a_file_has_the_name() -> None:
    assert not re.fullmatch(NAME, READY_SERVICE)
