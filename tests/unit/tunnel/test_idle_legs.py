"""Wire legs between their connections: bounds, eras, what arrives, and farewells, on real sockets and an own clock."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from stcp_proxy.config import Mode, PskAuth, TunnelPlan
from stcp_proxy.config.plan import KeepPlan
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.net.address import parse_address
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.leg import Leg, State
from stcp_proxy.protocol.opening import Opening, encode_keep
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FrameType, Role, Suite
from stcp_proxy.session import peer_leg
from stcp_proxy.session.peer_leg import PeerLeg
from stcp_proxy.tunnel import idle_legs
from stcp_proxy.tunnel.descriptors import Descriptors
from stcp_proxy.tunnel.idle_legs import IdleLegs

A, B = Secret(bytes(32)), Secret(bytes([1]) * 32)


def plan(mode: Mode, **keep: Any) -> TunnelPlan:
    return TunnelPlan(
        name="t",
        mode=mode,
        bind=parse_address("127.0.0.1:0", role="bind"),
        to=(),
        auth=PskAuth(A),
        suites=(Suite.CLASSIC_PSK,),
        keep=KeepPlan(**keep),
    )


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(peer_leg, "now", clock)
    monkeypatch.setattr(idle_legs, "now", clock)
    return clock


class Rig:
    """The legs of one tunnel, and the peers at their other ends."""

    def __init__(self, mode: Mode, clock: Clock, nursery: trio.Nursery, **keep: Any) -> None:
        self.mode, self.clock = mode, clock
        self.served: list[tuple[PeerLeg, Opening]] = []
        self.room = True
        self.descriptors = Descriptors()
        self.legs = IdleLegs(plan(mode, **keep), self.descriptors, self._serve, lambda: self.room)
        self.legs.open(nursery)
        self.sockets: list[socket.socket] = []

    def _serve(self, leg: PeerLeg, opening: Opening, _: trio.Nursery) -> None:
        self.served.append((leg, opening))

    def make(self, use: object = "peer", seconds: int = 30) -> tuple[PeerLeg, Leg, socket.socket]:
        """A leg after one connection: this side's, the peer's view of it, and the peer's socket."""
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        for sock in (ours, theirs):
            sock.setblocking(False)
        roles = (Role.RESPONDER, Role.INITIATOR) if self.mode is Mode.LISTEN else (Role.INITIATOR, Role.RESPONDER)
        mine = Channel(roles[0], Established(Suite.CLASSIC_PSK, A, B, bytes(32), None, b""))
        peer = Leg(roles[1], Established(Suite.CLASSIC_PSK, B, A, bytes(32), None, b""))
        first, second = (peer, mine.leg) if self.mode is Mode.LISTEN else (mine.leg, peer)
        assert second.open(first.seal(FrameType.OPEN, Opening(keep=seconds).encode()))
        assert first.open(second.seal(FrameType.ACCEPT, encode_keep(seconds)))
        for left, right in ((first, second), (second, first)):
            assert right.open(left.seal(FrameType.FIN))
        leg = PeerLeg(LegStream(ours), mine, use, "127.0.0.1:9", self.legs.era, self.clock(), self.clock())
        return leg, peer, theirs

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
async def make_rig(clock: Clock) -> AsyncIterator[Callable[..., Rig]]:
    made: list[Rig] = []
    async with trio.open_nursery() as nursery:

        def make(mode: Mode, **keep: Any) -> Rig:
            made.append(Rig(mode, clock, nursery, **keep))
            return made[-1]

        yield make
        nursery.cancel_scope.cancel()
    for rig in made:
        rig.close()


async def until(true: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not true():  # noqa: ASYNC110  (what it waits for has no event)
            await trio.sleep(0.001)


def hears_bye(peer: Leg, sock: socket.socket) -> bool:
    """Whether BYE has arrived, and the end behind it."""
    data = sock.recv(1000)
    received = peer.open(data)
    return received is not None and received.kind is FrameType.BYE and received.used == len(data) and sock.recv(1) == b""


async def test_newest_leg_is_used_first(make_rig: Callable[..., Rig], clock: Clock) -> None:
    rig = make_rig(Mode.CONNECT)
    first, second, other = rig.make()[0], rig.make()[0], rig.make("elsewhere")[0]
    for leg in (first, second, other):
        rig.legs.put(leg)
    assert len(rig.legs) == rig.descriptors.legs == 3
    assert [rig.legs.take("peer"), rig.legs.take("peer"), rig.legs.take("peer")] == [second, first, None]
    assert rig.legs.take("elsewhere") is other
    assert len(rig.legs) == rig.descriptors.legs == 0


@pytest.mark.parametrize("how", ["closed", "bye", "over"])
async def test_leg_that_has_ended_is_not_taken(make_rig: Callable[..., Rig], clock: Clock, how: str) -> None:
    rig = make_rig(Mode.CONNECT)
    leg, peer, sock = rig.make()
    rig.legs.put(leg)
    if how == "closed":
        sock.close()
    elif how == "bye":
        sock.send(peer.seal(FrameType.BYE))
    else:
        clock.seconds += 30
    assert rig.legs.take("peer") is None
    assert leg.stream.socket.fileno() < 0


async def test_leg_that_ends_at_rest_is_closed(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(Mode.CONNECT)
    leg, _, sock = rig.make()
    rig.legs.put(leg)
    await trio.sleep(0.01)
    sock.close()
    await until(lambda: leg.stream.socket.fileno() < 0)
    assert len(rig.legs) == 0


@pytest.mark.parametrize("mode", list(Mode))
async def test_bound_for_each_peer(make_rig: Callable[..., Rig], mode: Mode) -> None:
    rig = make_rig(mode, legs=2)
    made = [rig.make() for _ in range(4)]
    for leg, _, _ in made:
        rig.legs.put(leg)
    rig.legs.put(rig.make("other")[0])
    assert len(rig.legs) == 3
    assert [hears_bye(peer, sock) for _, peer, sock in made[:2]] == [True, True]


async def test_legs_give_way_when_descriptors_are_short(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(Mode.CONNECT)
    rig.descriptors.places = 10
    for _ in range(8):
        rig.legs.put(rig.make()[0])
    assert len(rig.legs) == 5, "a quarter of the descriptors"
    rig.descriptors.used = 9
    assert rig.descriptors.full
    assert rig.descriptors.make_room()
    assert len(rig.legs) == 1
    rig.descriptors.used = 10
    assert not rig.descriptors.make_room()
    assert len(rig.legs) == 0


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("change", ["replace", "retire"])
async def test_new_era_ends_legs_at_rest_and_legs_in_use(make_rig: Callable[..., Rig], mode: Mode, change: str) -> None:
    rig = make_rig(mode)
    resting, in_use = rig.make(), rig.make()
    rig.legs.put(resting[0])
    if change == "replace":
        rig.legs.replace(dataclasses.replace(plan(mode), dial_timeout=3.0))
        assert rig.legs.offer(rig.clock()) == 30
    else:
        rig.legs.retire()
        assert rig.legs.offer(rig.clock()) is None
    rig.legs.put(in_use[0])
    assert len(rig.legs) == 0
    for _, peer, sock in (resting, in_use):
        assert hears_bye(peer, sock)
        sock.close()
    with trio.fail_after(20):
        await rig.legs.wait_all_left()


async def test_offer_ends_with_the_age_of_a_leg(make_rig: Callable[..., Rig], clock: Clock) -> None:
    rig = make_rig(Mode.CONNECT, idle=30.0, max_age=100.0)
    made = clock()
    for age, seconds in ((0, 30), (70, 30), (80.5, 19), (99.5, None), (200, None)):
        clock.seconds = made + age
        assert rig.legs.offer(made) == seconds


@pytest.mark.parametrize("mode", list(Mode))
async def test_leg_older_than_max_age_carries_no_further_connection(
    make_rig: Callable[..., Rig], clock: Clock, mode: Mode
) -> None:
    """The offer was made before a connection that lasted for long."""
    rig = make_rig(mode, idle=30.0, max_age=100.0)
    (long, peer, sock), (nearly, _, _) = rig.make(), rig.make()
    clock.seconds += 90
    nearly.at_rest = clock()
    rig.legs.put(nearly)
    clock.seconds += 11
    assert rig.legs.take("peer") is None or mode is Mode.LISTEN
    long.at_rest = clock()
    rig.legs.put(long)
    assert hears_bye(peer, sock)
    await until(lambda: len(rig.legs) == 0)


async def test_idle_time_is_over(make_rig: Callable[..., Rig], clock: Clock) -> None:
    """The connect tunnel gives a leg up first."""
    connect, listen = make_rig(Mode.CONNECT), make_rig(Mode.LISTEN)
    (near, _, near_sock), (far, _, _) = connect.make(seconds=5), listen.make(seconds=5)
    connect.legs.put(near)
    listen.legs.put(far)
    clock.seconds += 5
    await until(lambda: len(connect.legs) == 0)
    assert len(listen.legs) == 1
    assert near_sock.recv(100)
    clock.seconds += 1
    await until(lambda: len(listen.legs) == 0)


async def test_lost_leg_takes_the_older_ones_with_it(make_rig: Callable[..., Rig], clock: Clock) -> None:
    rig = make_rig(Mode.CONNECT)
    made = []
    for _ in range(4):
        clock.seconds += 1
        made.append(rig.make()[0])
        rig.legs.put(made[-1])
    newest = rig.legs.take("peer")
    assert newest is made[3]
    fresh = rig.make()[0]
    fresh.at_rest = clock.seconds + 5
    rig.legs.put(fresh)
    rig.legs.lost(newest)
    assert rig.legs.take("peer") is fresh
    assert rig.legs.take("peer") is None


# -- a listen tunnel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["whole", "byte by byte", "read by the engine", "with bytes behind"])
async def test_open_starts_the_next_session(make_rig: Callable[..., Rig], way: str) -> None:
    rig = make_rig(Mode.LISTEN)
    leg, peer, sock = rig.make()
    frame = peer.seal(FrameType.OPEN, Opening(service="db").encode())
    behind = peer.seal(FrameType.DATA, b"first") if way == "with bytes behind" else b""
    if way == "read by the engine":
        leg.channel.rest = frame
    rig.legs.put(leg)
    if way == "byte by byte":
        for at in range(len(frame)):
            sock.send(frame[at : at + 1])
            await trio.sleep(0.001)
    elif way != "read by the engine":
        sock.send(frame + behind)
    await until(lambda: rig.served)
    assert rig.served == [(leg, Opening(service="db"))]
    assert (len(rig.legs), leg.channel.rest, leg.channel.leg.connection) == (0, behind, 1)
    assert leg.kind == "kept"


async def test_no_room_is_answered_by_bye(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(Mode.LISTEN)
    rig.room = False
    leg, peer, sock = rig.make()
    rig.legs.put(leg)
    sock.send(peer.seal(FrameType.OPEN) + peer.seal(FrameType.DATA, b"first"))
    await until(lambda: leg.channel.leg.state is State.LEFT)
    assert hears_bye(peer, sock)
    assert peer.state is State.UNUSED
    assert not rig.served
    assert leg.stream.socket.fileno() >= 0, "it reads until the peer has closed the leg"
    sock.close()
    await until(lambda: leg.stream.socket.fileno() < 0)


async def test_farewell_ends_without_the_peer(make_rig: Callable[..., Rig], clock: Clock) -> None:
    rig = make_rig(Mode.LISTEN)
    leg, _, _ = rig.make()
    rig.legs.put(leg)
    rig.legs.retire()
    clock.seconds += idle_legs.FAREWELL
    with trio.fail_after(20):
        await rig.legs.wait_all_left()
    assert leg.stream.socket.fileno() < 0


@pytest.mark.parametrize("what", ["bye", "end", "junk", "data"])
async def test_anything_else_ends_the_leg(make_rig: Callable[..., Rig], what: str) -> None:
    rig = make_rig(Mode.LISTEN)
    leg, peer, sock = rig.make()
    rig.legs.put(leg)
    if what == "bye":
        sock.send(peer.seal(FrameType.BYE))
    elif what == "end":
        sock.shutdown(socket.SHUT_WR)
    else:
        sock.send(b"\x03\x00\x00\x10" + bytes(16) if what == "junk" else peer.sealer.seal(FrameType.DATA, b"x"))
    await until(lambda: leg.stream.socket.fileno() < 0)
    assert not rig.served
    assert len(rig.legs) == 0


async def test_nothing_is_said_behind_a_frame_that_was_sent_in_part(make_rig: Callable[..., Rig]) -> None:
    """The peer would take the rest of that frame and the RESET for a frame that an attacker changed."""
    for part in (False, True):
        leg, peer, theirs = make_rig(Mode.CONNECT).make()
        frame = leg.channel.leg.seal(FrameType.OPEN, Opening(keep=30).encode())
        sent = frame[:10] if part else frame
        leg.stream.send_nowait(sent)
        leg.stream.is_cut = part
        leg.give_up()
        heard = theirs.recv(1000)
        assert (heard == sent) is part
        if not part:
            opened = peer.open(heard)
            assert opened is not None
            reset = peer.open(heard[opened.used :])
            assert reset is not None
            assert reset.kind is FrameType.RESET
