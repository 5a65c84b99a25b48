"""The connection that makes a wire leg ready: what both halves say, and what they refuse."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from stcp_proxy.errors import FrameError, PeerRejected, Truncated
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.established import Established
from stcp_proxy.protocol.leg import State
from stcp_proxy.protocol.opening import Opening, encode_keep, encode_reason
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import READY_SERVICE, FrameType, Role, Suite
from stcp_proxy.session.ready_leg import answer_ready, make_ready

A, B = Secret(bytes(32)), Secret(bytes([1]) * 32)


class Side:
    def __init__(self, role: Role, sock: socket.socket) -> None:
        keys = (A, B) if role is Role.INITIATOR else (B, A)
        sock.setblocking(False)
        self.stream = LegStream(sock)
        self.channel = Channel(role, Established(Suite.CLASSIC_PSK, *keys, bytes(32), None, b""))

    @property
    def state(self) -> State:
        return self.channel.leg.state

    async def say(self, kind: FrameType, content: bytes = b"") -> None:
        await self.stream.send_all(self.channel.seal(kind, content))


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    near, far = socket.socketpair()
    with near, far:
        yield Side(Role.INITIATOR, near), Side(Role.RESPONDER, far)


async def opened(responder: Side) -> Opening:
    kind, content = await responder.channel.read_frame(responder.stream)
    assert kind is FrameType.OPEN
    return Opening.decode(content)


async def test_both_halves_leave_the_leg_idle(sides: tuple[Side, Side]) -> None:
    initiator, responder = sides
    idle: list[bool] = []

    async def ask() -> None:
        idle.append(await make_ready(initiator.stream, initiator.channel, 30))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        assert await opened(responder) == Opening(service=READY_SERVICE, keep=30)
        await answer_ready(responder.stream, responder.channel, 20)
    assert idle == [True]
    assert (initiator.state, responder.state) == (State.IDLE, State.IDLE)
    assert initiator.channel.leg.keep == responder.channel.leg.keep == 20
    frame = initiator.channel.seal(FrameType.OPEN, Opening(keep=30).encode())  # the first connection
    responder.channel.rest = frame
    assert responder.channel.next_frame() is not None
    assert initiator.channel.leg.channel_id == responder.channel.leg.channel_id


async def test_responder_that_does_not_keep_the_leg(sides: tuple[Side, Side]) -> None:
    initiator, responder = sides
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await opened(responder)
            await responder.say(FrameType.ACCEPT, encode_keep(None))
            await responder.say(FrameType.FIN)

        nursery.start_soon(answer)
        assert not await make_ready(initiator.stream, initiator.channel, 30)


@pytest.mark.parametrize("kind", [FrameType.DATA, FrameType.RESET], ids=lambda kind: kind.name)
async def test_responder_refuses_anything_but_fin(sides: tuple[Side, Side], kind: FrameType) -> None:
    initiator, responder = sides
    await initiator.say(FrameType.OPEN, Opening(service=READY_SERVICE, keep=30).encode())
    await opened(responder)
    await initiator.say(kind, encode_reason(8, "") if kind is FrameType.RESET else b"byte")
    with pytest.raises(FrameError, match=kind.name):
        await answer_ready(responder.stream, responder.channel, 30)


async def test_initiator_refuses_bytes_too(sides: tuple[Side, Side]) -> None:
    initiator, responder = sides
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await opened(responder)
            await responder.say(FrameType.ACCEPT, encode_keep(30))
            await responder.say(FrameType.DATA, b"byte")

        nursery.start_soon(answer)
        with pytest.raises(FrameError, match="DATA"):
            await make_ready(initiator.stream, initiator.channel, 30)


async def test_refused(sides: tuple[Side, Side]) -> None:
    initiator, responder = sides
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await opened(responder)
            await responder.say(FrameType.REJECT, encode_reason(2, ""))

        nursery.start_soon(answer)
        with pytest.raises(PeerRejected):
            await make_ready(initiator.stream, initiator.channel, 30)


async def test_cut(sides: tuple[Side, Side]) -> None:
    initiator, responder = sides
    responder.stream.close()
    with pytest.raises(Truncated):
        await make_ready(initiator.stream, initiator.channel, 30)
