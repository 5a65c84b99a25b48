"""Connections end when the certificate of their peer expires, where the file says so."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth, Mode, TunnelPlan
from stcp_proxy.config.certificate_plan import CertificateAuth, CertificateKey, Facts, OwnCertificate, Trusted
from stcp_proxy.counters import Ledger
from stcp_proxy.credentials.path import LEEWAY
from stcp_proxy.credentials.verifier import Verified
from stcp_proxy.errors import KeyRevoked, StcpError
from stcp_proxy.handshake.trust import Peer, Trust
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections
from stcp_proxy.tunnel.revocation import end_expired
from stcp_proxy.tunnel.tunnel import Tunnel

from .rig import IDENTITY, PEER, FakeEngine, make_plan

BEGIN = 1_800_000_000.0
OWN = OwnCertificate((b"leaf",), CertificateKey(b"key"), ("dns:host",), Facts("dns:host", "a1", 0.0, BEGIN))


def plan(*, end: bool) -> TunnelPlan:
    certificates = CertificateAuth(OWN, Trusted(), ("dns:*",), ends_expired=end)
    return dataclasses.replace(make_plan(), auth=KeyAuth(IDENTITY, {PEER: "peer"}, certificates=certificates))


class Live(LiveConnections):
    """Notes which connections are cut."""

    def __init__(self) -> None:
        super().__init__(Mode.LISTEN, Trust.of(make_plan().auth), Ledger())
        self.ended: list[tuple[str, StcpError]] = []

    def enter(self, peer: str, not_after: float | None) -> None:
        connection = Connection("tunnel", "10.0.0.1:1", self)
        certificate = None if not_after is None else Verified(peer, "prod", 1, not_after, (), ((b"root", 1),))
        connection.proved(Peer(peer, "dns:*", certificate=certificate))
        self._all.add(connection)

    def cut(self, connection: Connection, why: StcpError) -> None:
        self.ended.append((connection.peer, why))
        self._all.discard(connection)


async def run(live: Live, *, end: bool, seconds: float) -> list[str]:
    """Names of the peers whose connections have ended after a time."""
    start = trio.current_time()
    with trio.move_on_after(seconds):
        await end_expired(plan(end=end), live, wall_clock=lambda: BEGIN + trio.current_time() - start)
    return [peer for peer, _ in live.ended]


async def test_each_at_its_time(autojump_clock: MockClock) -> None:
    live = Live()
    live.enter("soon", BEGIN - LEEWAY + 5)
    live.enter("later", BEGIN + 1000)
    live.enter("by key", None)
    assert await run(live, end=True, seconds=4) == []
    assert await run(live, end=True, seconds=60) == ["soon"]
    assert isinstance(live.ended[0][1], KeyRevoked)
    assert await run(live, end=True, seconds=1000 + LEEWAY + 20) == ["soon", "later"]


async def test_without_the_setting_nobody_ends(autojump_clock: MockClock) -> None:
    live = Live()
    live.enter("soon", BEGIN - 1000)
    assert await run(live, end=False, seconds=100) == []


async def test_a_tunnel_that_drains_ends_them_too(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a takeover a drain may last for an hour, and nothing is accepted then."""
    tunnel = Tunnel(make_plan(), FakeEngine())  # type: ignore[arg-type]
    tunnel.plan = plan(end=True)  # its files are none
    connection = Connection("tunnel", "10.0.0.1:1", tunnel.live)
    connection.proved(Peer("soon", "dns:*", certificate=Verified("soon", "prod", 1, BEGIN - 1e9, (), ((b"root", 1),))))
    tunnel.live._all.add(connection)

    def cut(gone: Connection, why: StcpError) -> None:
        assert isinstance(why, KeyRevoked)
        tunnel.live._all.discard(gone)
        tunnel.live.wake()

    monkeypatch.setattr(tunnel.live, "cut", cut)
    with trio.fail_after(60):
        await tunnel.drain()
