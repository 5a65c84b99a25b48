"""The rule of a session while a reload replaces keys, also where the tunnel intercepts and each route has a peer of its own."""

from __future__ import annotations

from stcp_proxy.config import KeyAuth
from stcp_proxy.config.certificate_plan import Trusted
from stcp_proxy.counters import Ledger
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net.address import parse_destination
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.session.access_rule import AccessRule, RouteRules
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.routes import Way
from stcp_proxy.upstream.targets import Targets

OLD, NEW = PrivateKey.generate(), PrivateKey.generate()
DB, WEB = PrivateKey.generate().public, PrivateKey.generate().public


def rule(own: PrivateKey, peer: object = DB) -> Trust:
    return Trust.of(KeyAuth(own, {peer: "peer"}))  # type: ignore[dict-item]


class Tunnel:
    """A tunnel whose rule changes."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.adopted = 0

    def adopt(self, connection: Connection) -> Trust:
        self.adopted += 1
        return self.trust


def connection() -> Connection:
    class Owner:
        ledger = Ledger()

    return Connection("tunnel", "client", Owner())  # type: ignore[arg-type]


def established(own: PrivateKey, peer: object = DB) -> Established:
    return Established(Suite.HYBRID_KEYS, Secret(bytes(32)), Secret(bytes(32)), bytes(32), peer.raw, b"", own.public.raw)  # type: ignore[attr-defined]


def way(trust: Trust, port: int, service: str | None = None) -> Way:
    return Way(trust, Targets([parse_destination(f"127.0.0.1:{port}")], tunnel="out"), Opening(service=service))


def test_without_a_reload_nothing_changes() -> None:
    tunnel = Tunnel(rule(OLD))
    found = AccessRule(tunnel.trust, tunnel, connection())
    assert found.still_admits(established(OLD))
    assert not found.renew()
    alone = AccessRule(tunnel.trust, None, connection())
    assert alone.still_admits(established(OLD))
    assert not alone.renew()


def test_new_key_of_this_side() -> None:
    tunnel = Tunnel(rule(OLD))
    found = AccessRule(tunnel.trust, tunnel, connection())
    tunnel.trust = rule(NEW)
    assert not found.still_admits(established(OLD))
    assert found.renew()
    assert (found.trust, tunnel.adopted) == (tunnel.trust, 1)
    assert found.still_admits(established(NEW))
    assert not found.renew()


def test_removed_tunnel_begins_no_handshake() -> None:
    tunnel = Tunnel(rule(OLD))
    found = AccessRule(tunnel.trust, tunnel, connection())
    tunnel.trust = tunnel.trust.remains([OLD.public], [], Trusted())
    assert not found.still_admits(established(OLD))
    assert not found.renew()


def test_each_route_has_its_own_rule() -> None:
    """The rule of the tunnel is not that of its routes: it would admit the peer of one route at another."""
    tunnel = Tunnel(rule(NEW, WEB))
    ways = [way(rule(OLD), 1), way(rule(OLD, WEB), 2), way(rule(OLD, WEB), 1, "web")]
    rules = RouteRules(ways[0], lambda: ways, tunnel)
    found = AccessRule(ways[0].trust, rules, connection())
    assert found.still_admits(established(OLD))
    assert not found.renew()
    ways = [way(rule(NEW, WEB), 2), way(rule(NEW, WEB), 1, "web"), way(rule(NEW), 1)]
    assert not found.still_admits(established(OLD))
    assert found.renew()
    assert found.trust is ways[2].trust
    assert tunnel.adopted == 1
    ways = []
    assert rules.trust.names == {DB.raw: "peer"}
