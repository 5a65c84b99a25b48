"""A process that was replaced reads its files for revocations alone; no file, no socket, no sleep."""

from __future__ import annotations

import dataclasses

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth, Mode, Plan, TunnelPlan
from stcp_proxy.errors import ConfigError, StcpError
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.process.replaced import LOOK, ReplacedReloader
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.tunnel.tunnels import Tunnels

OWN = PrivateKey(Secret(bytes(range(32))))
APP, WEB = (PublicKey(bytes(range(first, first + 32))) for first in (1, 2))


def tunnel(name: str, *peers: PublicKey) -> TunnelPlan:
    return TunnelPlan(
        name=name,
        mode=Mode.LISTEN,
        bind=TcpAddress("127.0.0.1", 0),
        to=(TcpAddress("127.0.0.1", 1),),
        auth=KeyAuth(OWN, dict.fromkeys(peers, "peer")),
        suites=(Suite.CLASSIC_KEYS,),
    )


def plan(*tunnels: TunnelPlan) -> Plan:
    return Plan(tunnels, known=frozenset((OWN.public, *(key for each in tunnels for key in each.auth.peers))), revoke_grace=0.0)  # type: ignore[union-attr]


BEFORE = plan(tunnel("a", APP, WEB), tunnel("b", APP))


class Rig:
    """A process that was replaced, with one connection of APP on tunnel `a`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> None:
        self.tunnels = Tunnels(BEFORE)
        self.tunnels.serving = [Tunnel(each, None) for each in BEFORE.tunnels]  # type: ignore[arg-type]
        self.tunnels._connections = nursery
        self.cut: list[str] = []
        live = self.tunnels.serving[0].live
        connection = Connection("a", "10.0.0.1:1", live)
        connection.proved(Peer("app", "app", APP.raw, OWN.public.raw))
        live._all.add(connection)
        monkeypatch.setattr(live, "cut", lambda gone, why: self.cut.append(f"{gone.peer} {type(why).__name__}"))
        self.file: Plan | StcpError = BEFORE
        self.reloader = ReplacedReloader(self.tunnels, lambda: self.read, BEFORE)

    def read(self) -> Plan:
        if isinstance(self.file, StcpError):
            raise self.file
        return self.file

    async def reload(self, file: Plan | StcpError) -> list[str]:
        """The connections that end with this file."""
        self.file = file
        await self.reloader.reload()
        await trio.testing.wait_all_tasks_blocked()
        return self.cut


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery) -> Rig:
    return Rig(monkeypatch, nursery)


@pytest.mark.parametrize(
    ("file", "ends"),
    [
        pytest.param(BEFORE, False, id="nothing has changed"),
        pytest.param(plan(tunnel("a", WEB), tunnel("b", APP)), True, id="not in its tunnel any more"),
        pytest.param(plan(tunnel("b", APP)), False, id="its tunnel is gone, its key is not"),
        pytest.param(plan(tunnel("b", WEB)), True, id="its tunnel and its key are gone"),
    ],
)
async def test_connections_that_the_file_no_longer_admits_end(rig: Rig, file: Plan, ends: bool) -> None:
    assert await rig.reload(file) == (["app KeyRevoked"] if ends else [])
    assert [each.plan for each in rig.tunnels.serving] == list(BEFORE.tunnels)  # nothing else of the file counts


async def test_a_key_that_comes_back_before_it_ends(rig: Rig, mock_clock: MockClock) -> None:
    late = dataclasses.replace(plan(tunnel("a", WEB), tunnel("b", APP)), revoke_grace=5.0)
    assert await rig.reload(late) == []
    assert await rig.reload(BEFORE) == []
    mock_clock.jump(10)
    await trio.testing.wait_all_tasks_blocked()
    assert rig.cut == []


async def test_a_key_that_stays_away_ends_after_its_grace(rig: Rig, mock_clock: MockClock) -> None:
    assert await rig.reload(dataclasses.replace(plan(tunnel("a", WEB), tunnel("b", APP)), revoke_grace=5.0)) == []
    mock_clock.jump(4.9)
    await trio.testing.wait_all_tasks_blocked()
    assert rig.cut == []
    mock_clock.jump(0.2)
    await trio.testing.wait_all_tasks_blocked()
    assert rig.cut == ["app KeyRevoked"]


@pytest.mark.parametrize("file", [ConfigError("a mistake", remedy="correct it"), plan()])
async def test_a_file_that_is_refused_changes_nothing(rig: Rig, file: Plan | StcpError) -> None:
    with pytest.raises(ConfigError):
        await rig.reload(file)
    assert rig.cut == []
    assert rig.reloader.now.tunnels == BEFORE.tunnels


async def test_the_files_are_watched_without_the_setting_too(rig: Rig) -> None:
    assert BEFORE.watch is None
    assert rig.reloader.now.watch == LOOK
    await rig.reload(dataclasses.replace(BEFORE, watch=2.0))
    assert rig.reloader.now.watch == 2.0
