"""The routes of a tunnel: their targets, their checks, and their keys after a reload."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest

from stcp_proxy.config import KeyAuth, Mode, PskAuth, TunnelPlan
from stcp_proxy.config.plan import CapturePlan, InterceptPlan, RoutePlan
from stcp_proxy.errors import TargetRefused
from stcp_proxy.keys import PublicKey, generate_psk
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.upstream.routes import Way

from .rig import IDENTITY, PEER, FakeEngine, make_plan

ROUTED = (TcpAddress("10.9.9.9", 1), TcpAddress("10.9.9.9", 2))


def make_routes(*, auth: KeyAuth | None = None) -> TunnelPlan:
    matches = [parse_pattern("10.0.0.1:80"), parse_pattern("10.1.0.0/16")]
    routes = [
        RoutePlan(match, (to,), auth or PskAuth(generate_psk()), service=str(to.port))
        for match, to in zip(matches, ROUTED, strict=True)
    ]
    capture = CapturePlan(Interception.REDIRECT, 15001, True, True, False, None, None, (), (), ())
    plan = make_plan(Mode.CONNECT)
    return dataclasses.replace(plan, to=ROUTED, intercept=InterceptPlan(tuple(routes), False, capture))


async def test_a_target_behind_a_route_is_told_once() -> None:
    found = Tunnel(make_routes(), FakeEngine()).behind
    assert [(service, route, str(targets.to[0])) for service, route, targets in found] == [
        ("", "10.0.0.1:80", "10.9.9.9:1"),
        ("", "10.1.0.0/16", "10.9.9.9:2"),
    ]


@pytest.mark.parametrize("down", [None, 0, 1])
async def test_every_route_is_asked_for_its_target_as_its_connections_are(
    monkeypatch: pytest.MonkeyPatch, down: int | None
) -> None:
    """By its own keys and for its own service, and spared by the rules; one that does not answer is enough."""
    asked = {}

    async def reach(plan: TunnelPlan, way: Way) -> None:
        (to,) = way.targets.to
        asked[to] = (way.trust.credentials.psk, way.opening.service, way.targets.own is not None)
        if down is not None and to == ROUTED[down]:
            raise TargetRefused("down", remedy="start it")

    monkeypatch.setattr("stcp_proxy.tunnel.upstreams.reach", reach)
    plan = make_routes()
    assert plan.intercept is not None
    with nullcontext() if down is None else pytest.raises(TargetRefused):
        await Tunnel(plan, FakeEngine()).reach()
    assert asked == {
        route.to[0]: (route.auth.secret, route.service, True)
        for route in plan.intercept.routes
        if isinstance(route.auth, PskAuth)
    }


@pytest.mark.parametrize("routed", [False, True])
async def test_a_reload_forgets_which_keys_worked_on_every_way(routed: bool) -> None:
    auth = KeyAuth(IDENTITY, {PEER: "peer", PublicKey(bytes(range(2, 34))): "peer"})
    plan = make_routes(auth=auth) if routed else dataclasses.replace(make_plan(Mode.CONNECT), auth=auth)
    tunnel = Tunnel(plan, FakeEngine())
    choices = [way.trust.choice for way in tunnel.upstreams.ways]
    assert len(choices) == (2 if routed else 1)
    before = [choice.order("there", 0.0) for choice in choices]
    for choice, (first, second) in zip(choices, before, strict=True):
        choice.worked("there", second, 0.0)
        assert choice.order("there", 1.0) == [second, first]
    tunnel.upstreams.forget_key_order()
    assert [choice.order("there", 1.0) for choice in choices] == before
