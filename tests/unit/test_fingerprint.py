"""Two plans have the same fingerprint when, and only when, they say the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stcp_proxy.config import AdminPlan, KeyAuth, LogClass, LogPlan, Mode, Plan, PskAuth, ServicePlan, Token, TunnelPlan
from stcp_proxy.config.fingerprint import fingerprint
from stcp_proxy.config.plan import AcceptProxy, HandOn
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress, UnixAddress
from stcp_proxy.net.name_cache import DnsSettings
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

NONCE = b"n" * 32
APP, WEB = PublicKey(b"\1" * 32), PublicKey(b"\2" * 32)


def key(byte: bytes = b"k") -> PrivateKey:
    return PrivateKey(Secret(byte * 32))


def plan() -> Plan:
    tunnel = TunnelPlan(
        name="a",
        mode=Mode.LISTEN,
        bind=TcpAddress("127.0.0.1", 1),
        to=(UnixAddress("/run/x"),),
        auth=KeyAuth(key(), {APP: "app", WEB: "web"}),
        suites=(Suite.HYBRID_KEYS,),
        services={"one": ServicePlan((TcpAddress("", 2),), allow=frozenset({APP, WEB}))},
        hand_on=HandOn(allow_clients=(parse_pattern("10.0.0.0/8:443"), parse_pattern("[2001:db8::/32]"))),
    )
    return Plan(
        (tunnel,),
        log=LogPlan(quiet=frozenset(LogClass)),
        admin=AdminPlan(TcpAddress("", 3), Token("t" * 20)),
        known=frozenset({APP}),
    )


def with_tunnel(**settings: Any) -> Plan:
    first = plan()
    return dataclasses.replace(first, tunnels=(dataclasses.replace(first.tunnels[0], **settings),))


def with_plan(**settings: Any) -> Plan:
    return dataclasses.replace(plan(), **settings)


OTHERS = [
    with_tunnel(auth=KeyAuth(key(b"K"), {APP: "app", WEB: "web"})),
    with_tunnel(auth=KeyAuth(key(), {APP: "app", WEB: "web"}, (key(b"K"),))),
    with_tunnel(auth=KeyAuth(key(), {WEB: "web", APP: "app"})),
    with_tunnel(auth=KeyAuth(key(), {APP: "web", WEB: "app"})),
    with_tunnel(auth=PskAuth(Secret(b"k" * 32))),
    with_tunnel(auth=PskAuth(Secret(b"K" * 32))),
    with_tunnel(idle_timeout=1.0),
    with_tunnel(ready_by_target=True),
    with_tunnel(bind=UnixAddress("/run/y")),
    with_tunnel(to=()),
    with_tunnel(services={}),
    with_tunnel(accept_proxy=AcceptProxy()),
    with_tunnel(hand_on=HandOn(allow_clients=(parse_pattern("10.0.0.0/9:443"), parse_pattern("[2001:db8::/32]")))),
    with_plan(admin=AdminPlan(TcpAddress("", 3), Token("T" * 20))),
    with_plan(known=frozenset({APP, WEB})),
    with_plan(log=LogPlan()),
    with_plan(dns=DnsSettings(servers=(TcpAddress("::1", 53),))),
    with_plan(drain=30),  # in place of 30.0: that it is strict does no harm
]


def test_the_same_says_the_same() -> None:
    assert fingerprint(plan(), NONCE) == fingerprint(plan(), NONCE)
    other = with_plan(log=LogPlan(quiet=frozenset(reversed(LogClass))))
    assert fingerprint(other, NONCE) == fingerprint(plan(), NONCE)


def test_whatever_differs_counts() -> None:
    found = [fingerprint(each, NONCE) for each in [plan(), *OTHERS]]
    assert len(set(found)) == len(found)


def test_nobody_recognizes_it_the_next_time() -> None:
    assert fingerprint(plan(), NONCE) != fingerprint(plan(), b"m" * 32)


def test_an_unknown_kind_is_not_passed_over() -> None:
    with pytest.raises(TypeError, match="PosixPath"):
        fingerprint(with_tunnel(service=Path("/")), NONCE)
