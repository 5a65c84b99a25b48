"""Which peer gets what, and what the others learn: nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from stcp_proxy.config import KeyAuth, Mode, ServicePlan, TunnelPlan
from stcp_proxy.errors import Code, ServiceUnknown, code_for
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.session.services import Offers
from stcp_proxy.upstream.targets import Targets

ALICE, BOB = PublicKey(bytes([1]) * 32), PublicKey(bytes([2]) * 32)
REDIS, WEB, FALLBACK = (TcpAddress("127.0.0.1", port) for port in (6379, 80, 9))


def offers(
    services: Mapping[str, ServicePlan], *, to: tuple[TcpAddress, ...] = (), allow: frozenset[PublicKey] | None = None
) -> Offers:
    plan = TunnelPlan(
        name="tunnel",
        mode=Mode.LISTEN,
        bind=TcpAddress("127.0.0.1", 1),
        to=to,
        auth=KeyAuth(PrivateKey(Secret(bytes(32))), {ALICE: "alice", BOB: "bob"}),
        suites=(Suite.CLASSIC_KEYS,),
        services=services,
        allow=allow,
    )
    return Offers(plan, Targets(to, tunnel="tunnel"))


def peer(key: PublicKey | None) -> Peer:
    return Peer("somebody", key=None if key is None else key.raw)


EACH_THEIR_OWN = {"redis": ServicePlan((REDIS,), frozenset({ALICE})), "web": ServicePlan((WEB,), frozenset({BOB}))}


def test_each_gets_what_is_theirs() -> None:
    mine = offers(EACH_THEIR_OWN, to=(FALLBACK,))
    assert mine.choose("redis", peer(ALICE)).targets.to == (REDIS,)
    assert mine.choose("web", peer(BOB)).targets.to == (WEB,)
    assert mine.choose(None, peer(BOB)).targets.to == (FALLBACK,)


@pytest.mark.parametrize(
    ("service", "who", "says"),
    [
        ("web", ALICE, "may not use the service 'web'"),
        ("redis", BOB, "may not use the service 'redis'"),
        ("redis", None, "may not use the service 'redis'"),
        ("mail", ALICE, "'mail', which this tunnel does not have"),
        ("Redis", ALICE, "'Redis', which this tunnel does not have"),
        ("redis\n", ALICE, "does not have"),
        (None, BOB, "may not use 'to'"),
    ],
)
def test_others_are_told_one_and_the_same(service: str | None, who: PublicKey | None, says: str) -> None:
    """On the wire a service for others looks like none at all; the log knows better."""
    mine = offers(EACH_THEIR_OWN, to=(FALLBACK,), allow=frozenset({ALICE}))
    with pytest.raises(ServiceUnknown) as caught:
        mine.choose(service, peer(who))
    assert says in caught.value.what
    assert "\n" not in caught.value.what
    assert code_for(caught.value) is Code.UNKNOWN_SERVICE


def test_a_tunnel_without_services() -> None:
    mine = offers({}, to=(FALLBACK,))
    assert mine.choose(None, peer(ALICE)).targets.to == (FALLBACK,)
    with pytest.raises(ServiceUnknown, match="has no services"):
        mine.choose("redis", peer(ALICE))


def test_a_tunnel_with_services_alone() -> None:
    with pytest.raises(ServiceUnknown, match="names no service"):
        offers(EACH_THEIR_OWN).choose(None, peer(ALICE))


def test_a_shared_secret_may_have_everything() -> None:
    mine = offers({"redis": ServicePlan((REDIS,))}, to=(FALLBACK,))
    assert mine.choose("redis", peer(None)).service == "redis"
    assert mine.choose(None, peer(None)).service == ""
