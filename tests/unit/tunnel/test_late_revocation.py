"""A connect tunnel's connection that was past OPEN when a reload replaced its key ends like a live one: after the grace."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth, Mode
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import StcpError
from stcp_proxy.handshake.trust import Peer, Trust
from stcp_proxy.keys import PrivateKey
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections
from stcp_proxy.tunnel.revocation import revoke

OLD, NEW, PEER = PrivateKey.generate(), PrivateKey.generate(), PrivateKey.generate().public
GRACE = 5.0


class Rig:
    """A connection whose handshake was made by the old key of this side, between OPEN and ACCEPT."""

    def __init__(self, mode: Mode = Mode.CONNECT) -> None:
        self.before, self.after = (Trust.of(KeyAuth(key, {PEER: "db"})) for key in (OLD, NEW))
        self.live = LiveConnections(mode, self.before, Ledger())
        self.cut: list[tuple[Connection, float]] = []
        self.live.cut = self._cut  # type: ignore[method-assign]
        self.connection = Connection("tunnel", "client", self.live)
        self.live.add(self.connection, None)  # type: ignore[arg-type]
        self.connection.proved(Peer("db", "db", PEER.raw, OLD.public.raw))

    def _cut(self, connection: Connection, why: StcpError, text: str = "") -> None:
        self.cut.append((connection, trio.current_time()))
        self.live.forget(connection)

    def reload(self, grace: float, nursery: trio.Nursery) -> None:
        """Put the new key in force, as a commit does."""
        self.live.trust = self.after
        self.live.grace_until = trio.current_time() + grace
        nursery.start_soon(revoke, "tunnel", self.live, self.before, grace)


@pytest.mark.parametrize(("grace", "end"), [(0.0, 1.0), (GRACE, GRACE)])
async def test_end_of_a_connection_that_is_accepted_after_the_reload(autojump_clock: MockClock, grace: float, end: float) -> None:
    rig, began = Rig(), trio.current_time()
    async with trio.open_nursery() as nursery:
        rig.reload(grace, nursery)
        await trio.sleep(1)
        rig.live.opened(rig.connection)
        await trio.sleep(60)
    assert [(connection, at - began) for connection, at in rig.cut] == [(rig.connection, pytest.approx(end, abs=0.01))]


async def test_key_that_comes_back_keeps_it(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        rig.reload(GRACE, nursery)
        await trio.sleep(1)
        rig.live.opened(rig.connection)
        rig.live.trust = rig.before
        await trio.sleep(60)
    assert rig.cut == []


async def test_later_revocation_does_not_lengthen_the_grace(autojump_clock: MockClock) -> None:
    rig, began = Rig(), trio.current_time()
    async with trio.open_nursery() as nursery:
        rig.reload(GRACE, nursery)
        await trio.sleep(1)
        rig.live.opened(rig.connection)
        rig.reload(60, nursery)
        await trio.sleep(100)
    assert [at - began for _, at in rig.cut] == [pytest.approx(GRACE, abs=0.01)]


async def test_listen_tunnel_refuses_at_once(autojump_clock: MockClock) -> None:
    """Its answer is REJECT, and the peer tries again with another key."""
    rig, began = Rig(Mode.LISTEN), trio.current_time()
    async with trio.open_nursery() as nursery:
        rig.reload(GRACE, nursery)
        await trio.sleep(1)
        rig.live.proved(rig.connection)
        await trio.sleep(60)
    assert [at - began for _, at in rig.cut] == [pytest.approx(1.0, abs=0.01)]
