"""The limits of each peer: what counts, what is refused, and what is given back. The clock jumps."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.config import Mode, PskAuth, TunnelPlan
from stcp_proxy.config.audit import Audit
from stcp_proxy.config.auth_plan import KeyAuth
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import Code, KeyRevoked, PeerOverLimit
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.keys import PublicKey
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.engine import EndReason, RelayEnd
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections
from stcp_proxy.tunnel.peer_limits import PeerLimits

from .rig import IDENTITY, PEER, make_plan

OTHER = PublicKey(bytes(range(2, 34)))
THIRD = PublicKey(bytes(range(3, 35)))


def two_peers(**settings: Any) -> TunnelPlan:
    """The peer `peer` with two keys, and another one."""
    auth = KeyAuth(IDENTITY, {PEER: "peer", OTHER: "peer", THIRD: "third"})
    return dataclasses.replace(make_plan(connections=20), auth=auth, **settings)


def shared_secret(**settings: Any) -> TunnelPlan:
    return dataclasses.replace(make_plan(), auth=PskAuth(Secret(bytes(range(32)))), **settings)


class Site:
    """The live connections of one tunnel."""

    def __init__(self, plan: TunnelPlan) -> None:
        self.plan = plan
        self.live = LiveConnections(Mode.LISTEN, Trust.of(plan.auth), Ledger())

    def admit(self, peer: str, client: str = "10.0.0.1:5") -> Connection:
        connection = Connection("tunnel", client, self.live)
        connection.peer = peer
        self.live.admit(connection, self.plan)
        return connection

    def refused(self, peer: str, client: str = "10.0.0.1:5") -> PeerOverLimit:
        with pytest.raises(PeerOverLimit) as caught:
            self.admit(peer, client)
        return caught.value


async def test_a_peer_has_its_places_and_no_more() -> None:
    site = Site(two_peers(max_connections_per_peer=2))
    first = site.admit("peer")
    site.admit("peer")
    failure = site.refused("peer")
    assert (failure.code, failure.label, failure.setting) == (Code.OVER_LIMIT, "peer_over_limit", "max_connections_per_peer")
    assert "max_connections_per_peer" in (failure.remedy or "")
    site.admit("third")  # the limit is of each
    first.ended(RelayEnd(EndReason.FINISHED, 0, 0))
    site.admit("peer")
    site.refused("peer")
    assert site.live.ledger.limits["max_connections_per_peer"] == 2


@pytest.mark.parametrize("limit", ["max_connections_per_peer", "rate_per_peer"])
async def test_refused_connections_of_one_peer_take_few_places(autojump_clock: MockClock, limit: str) -> None:
    """Each keeps its place until REJECT was read, and the peer may never read it."""
    site = Site(two_peers(**{limit: 1}))
    site.admit("peer")
    assert [site.refused("peer").often for _ in range(10)] == [False] * 8 + [True] * 2
    site.admit("third")
    assert not site.refused("third").often  # each for itself
    if limit == "max_connections_per_peer":
        await trio.sleep(1)
        assert [site.refused("peer").often for _ in range(2)] == [False, True]


async def test_a_refused_connection_gives_no_place_back() -> None:
    """Its peer never had one more."""
    site = Site(two_peers(max_connections_per_peer=1))
    site.admit("peer")
    refused = Connection("tunnel", "10.0.0.1:5", site.live)
    refused.peer = refused.rule = "peer"
    with pytest.raises(PeerOverLimit) as caught:
        site.live.admit(refused, site.plan)
    refused.failed(caught.value)
    site.refused("peer")
    assert site.live.ledger.refused["peer", "peer_over_limit"] == 1


async def test_a_connection_that_ends_twice_gives_one_place_back() -> None:
    site = Site(two_peers(max_connections_per_peer=2))
    first = site.admit("peer")
    site.admit("peer")
    site.live.forget(first)
    site.live.forget(first)
    site.admit("peer")
    site.refused("peer")


async def test_by_default_a_peer_leaves_a_tenth_to_others() -> None:
    site = Site(two_peers())
    for _ in range(18):
        site.admit("peer")
    site.refused("peer")


@pytest.mark.parametrize("plan", [make_plan(connections=20), shared_secret()], ids=["one-peer", "psk"])
async def test_where_nobody_else_is_named_one_may_take_all(plan: TunnelPlan) -> None:
    site = Site(plan)
    for _ in range(plan.max_connections):
        site.admit("peer")


@pytest.mark.parametrize("connections", [1, 2, 5])
def test_the_default_is_at_least_one_place(connections: int) -> None:
    plan = dataclasses.replace(two_peers(), max_connections=connections)
    assert plan.places_per_peer == max(1, connections - 1)


async def test_new_connections_a_second(autojump_clock: MockClock) -> None:
    site = Site(two_peers(rate_per_peer=3))
    for _ in range(3):
        site.live.forget(site.admit("peer"))
    failure = site.refused("peer")
    assert failure.setting == "rate_per_peer"
    site.admit("third")
    await trio.sleep(0.34)
    site.admit("peer")
    site.refused("peer")
    await trio.sleep(60)
    for _ in range(3):
        site.admit("peer")
    site.refused("peer")
    assert site.live.ledger.limits["rate_per_peer"] == 3


async def test_with_a_shared_secret_a_host_is_a_peer() -> None:
    """A neighbour in the same network has limits of its own."""
    site = Site(shared_secret(max_connections_per_peer=1))
    name = "(shared secret)"
    for client in ("10.0.0.1:5", "10.0.0.2:5", "[2001:db8::1]:5", "[2001:db8:0:1::1]:5", "unix"):
        site.admit(name, client)
    for client in ("10.0.0.1:6", "[2001:db8::2]:5", "unix"):
        site.refused(name, client)


async def test_a_reload_changes_the_limit_for_those_that_are_there() -> None:
    site = Site(two_peers(max_connections_per_peer=1))
    site.admit("peer")
    site.plan = two_peers(max_connections_per_peer=2)
    site.admit("peer")
    site.plan = two_peers(max_connections_per_peer=1)
    site.refused("peer")


async def test_nothing_is_kept_of_peers_that_left() -> None:
    limits, site = PeerLimits(), Site(shared_secret(max_connections_per_peer=1))
    for number in range(100):
        connection = Connection("tunnel", f"10.0.0.{number}:1", site.live)
        limits.admit(connection, site.plan)
        limits.release(connection)
    assert not limits._open


def audited_plan(seconds_left: float, **settings: Any) -> TunnelPlan:
    auth = KeyAuth(IDENTITY, {PEER: "peer"}, audit=Audit(time.time() + seconds_left))
    return dataclasses.replace(make_plan(connections=20), auth=auth, **settings)


def authenticated(site: Site, key: PublicKey, client: str = "10.0.0.1:5") -> Connection:
    """A connection whose peer has proved a key; its OPEN has just arrived."""
    connection = Connection("tunnel", client, site.live)
    established = Established(
        Suite.CLASSIC_KEYS, Secret(bytes(32)), Secret(bytes(32)), bytes(32), key.raw, b"", IDENTITY.public.raw
    )
    connection.proved(site.live.trust.peer(established))
    return connection


async def test_peers_that_audit_admits_count_by_host() -> None:
    """Anybody can make any number of keys. The log and the count tell each connection; nothing is kept for a key."""
    site = Site(audited_plan(1000, max_connections_per_peer=2))
    with structlog.testing.capture_logs() as lines:
        for key, client in ((OTHER, "10.0.0.1:1"), (THIRD, "10.0.0.1:2"), (OTHER, "10.0.0.2:3")):
            connection = authenticated(site, key, client)
            site.live.admit(connection, site.plan)
            connection.admitted_by_audit()
        with pytest.raises(PeerOverLimit, match="the peer's host has 2 connections"):
            site.live.admit(authenticated(site, THIRD, "10.0.0.1:4"), site.plan)
        for number in (1, 2):  # the same host, and a limit of its own
            site.live.admit(authenticated(site, PEER, f"10.0.0.1:{number}"), site.plan)
    assert [(line["event"], line["peer"], line["log_level"]) for line in lines] == [
        ("peer admitted by audit", str(key), "warning") for key in (OTHER, THIRD, OTHER)
    ]
    assert "add the key to 'allow'" in lines[0]["remedy"]
    assert site.live.ledger.audited == {"unknown_peer": 3}
    assert [theirs for _, theirs in site.live.ledger.pairs] == [PEER.raw]


async def test_a_kept_leg_after_the_audit() -> None:
    """Its handshake was before the date, and the OPEN of its next connection is after it."""
    site = Site(audited_plan(-1))
    connection = authenticated(site, OTHER)
    assert connection.audited
    with pytest.raises(KeyRevoked, match="an audit that is over"):
        site.live.admit(connection, site.plan)
    assert not site.live.ledger.audited
    site.live.admit(authenticated(site, PEER), site.plan)
