"""Plain legs that the network reaches are found on either side; legs that stay on this host are not."""

from __future__ import annotations

import dataclasses

import pytest

from stcp_proxy.config import AcceptProxy, HandOn, Mode, Plan, PskAuth, ServicePlan, TunnelPlan, describe_plan
from stcp_proxy.config.exposure import exposures
from stcp_proxy.config.plan import CapturePlan, InterceptPlan
from stcp_proxy.net.address import parse_address, parse_destination
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite


def tunnel(mode: Mode, bind: str, *to: str) -> TunnelPlan:
    return TunnelPlan(
        name="tunnel",
        mode=mode,
        bind=parse_address(bind, role="bind"),
        to=tuple(map(parse_destination, to)),
        auth=PskAuth(Secret(bytes(32))),
        suites=(Suite.HYBRID_PSK,),
    )


@pytest.mark.parametrize("bind", [":5432", "0.0.0.0:5432", "[::]:5432", "203.0.113.7:5432", "db.example:5432"])
def test_a_bind_that_the_network_reaches(bind: str) -> None:
    (found,) = exposures(tunnel(Mode.CONNECT, bind, "10.0.0.1:7443"))
    assert found.address == bind
    assert "this host's key" in found.why


@pytest.mark.parametrize("bind", ["127.0.0.1:5432", "127.9.9.9:5432", "[::1]:5432", "localhost:5432", "unix:/run/db.sock"])
def test_a_bind_that_only_this_host_reaches(bind: str) -> None:
    assert exposures(tunnel(Mode.CONNECT, bind, "10.0.0.1:7443")) == []


def test_load_balancers_that_are_listed_are_meant() -> None:
    plan = tunnel(Mode.CONNECT, ":5432", "10.0.0.1:7443")
    listed = AcceptProxy((parse_pattern("10.0.0.10"),))
    assert exposures(dataclasses.replace(plan, accept_proxy=listed)) == []
    assert len(exposures(dataclasses.replace(plan, accept_proxy=AcceptProxy(None)))) == 1


def test_targets_on_other_hosts() -> None:
    plan = tunnel(Mode.LISTEN, ":7443", "127.0.0.1:1", "203.0.113.7:1", "unix:/run/db.sock", "db.example:1", "localhost:1")
    assert [each.address for each in exposures(plan)] == ["203.0.113.7:1", "db.example:1"]


def test_targets_of_services() -> None:
    service = ServicePlan((parse_destination("203.0.113.7:1"), parse_destination("127.0.0.1:2")), None, HandOn())
    plan = dataclasses.replace(tunnel(Mode.LISTEN, ":7443", "203.0.113.7:1"), services={"web": service})
    assert [each.address for each in exposures(plan)] == ["203.0.113.7:1"]


def test_an_intercepting_tunnel_refuses_who_dials_it() -> None:
    plan = tunnel(Mode.CONNECT, ":5432")
    capture = CapturePlan(Interception.REDIRECT, 15001, True, True, True, None, None, (), (), ())
    assert exposures(dataclasses.replace(plan, intercept=InterceptPlan((), False, capture))) == []


def test_check_warns_of_them() -> None:
    shown = describe_plan(Plan(tunnels=(tunnel(Mode.CONNECT, ":5432", "10.0.0.1:7443"),)))
    assert "WARNING" in shown
    assert ":5432 is open to the network" in shown
    assert "WARNING" not in describe_plan(Plan(tunnels=(tunnel(Mode.CONNECT, "127.0.0.1:5432", "10.0.0.1:7443"),)))
