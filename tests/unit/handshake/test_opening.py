"""The opening over memory streams: OPEN, its answer, and a rejection, on a clock that jumps."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from stcp_proxy.errors import Code, FrameError, HandshakeClosed, PeerRejected, Truncated
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.exchange import LINGER, Channel
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.opening import Opening, encode_reason
from stcp_proxy.protocol.wire import MAX_TEXT, FrameType

from .two_sides import SECRET, Ends, Outcome, establish, finish, part


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while part := await stream.receive_some():
        data += part
    return data


async def after_open(ends: Ends) -> tuple[Channel, Channel]:
    """Both channels after OPEN."""
    left, right = await establish(ends)
    assert right.leg.open(left.seal(FrameType.OPEN)) is not None
    return left, right


# -- OPEN ---------------------------------------------------------------

OPENINGS: dict[str, tuple[FrameType | int, bytes]] = {
    "data": (FrameType.DATA, b"words"),
    "empty-data": (FrameType.DATA, b""),
    "fin": (FrameType.FIN, b""),
    "reset": (FrameType.RESET, encode_reason(8, "")),
    "accept": (FrameType.ACCEPT, b""),
    "reject": (FrameType.REJECT, encode_reason(1, "")),
    "cut-header": (FrameType.OPEN, b"\x01\x00"),
    "cut-value": (FrameType.OPEN, b"\x01\x00\x05abc"),
    "twice": (FrameType.OPEN, b"\x01\x00\x01a" * 2),
    "empty-service": (FrameType.OPEN, b"\x01\x00\x00"),
    "long-service": (FrameType.OPEN, b"\x01\x01\x00" + b"a" * 256),
    "service-not-utf-8": (FrameType.OPEN, b"\x01\x00\x01\xff"),
    "family": (FrameType.OPEN, b"\x02\x00\x07\x05" + bytes(6)),
    "address-too-short": (FrameType.OPEN, b"\x02\x00\x06\x04" + bytes(5)),
    "address-empty": (FrameType.OPEN, b"\x03\x00\x00"),
}


@pytest.mark.parametrize("name", OPENINGS)
async def test_open_out_of_place_or_malformed(autojump_clock: MockClock, ends: Ends, name: str) -> None:
    left, right = await establish(ends)
    kind, plaintext = OPENINGS[name]
    await ends.left.send_all(left.leg.sealer.seal(kind, plaintext))
    with pytest.raises(FrameError) as caught:
        await exchange.read_open(ends.right, right)
    assert caught.value.code is Code.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "header", [b"\x06\x00\x00\x10", b"\xff\x00\x00\x10", b"\x03\x01\x00\x10", b"\x03\x00\x00\x0f", b"\x03\x00\xff\xff"]
)
async def test_frame_header_that_is_none(autojump_clock: MockClock, ends: Ends, header: bytes) -> None:
    """Refused at the header already: nobody waits for what it announces."""
    _, right = await establish(ends)
    await ends.left.send_all(header)
    with pytest.raises(FrameError):
        await exchange.read_open(ends.right, right)


@pytest.mark.parametrize("end", ["silence", "eof", "broken"])
async def test_open_cut_at_each_byte(autojump_clock: MockClock, end: str) -> None:
    size = len(Sealer(SECRET).seal(FrameType.OPEN, Opening(service="db").encode()))
    for cut in range(size):
        ends = Ends(*memory_stream_pair())
        left, right = await establish(ends)
        await finish(ends.left, left.seal(FrameType.OPEN, Opening(service="db").encode())[:cut], end)
        outcome = Outcome()
        await part(lambda ends=ends, right=right: exchange.read_open(ends.right, right), outcome)  # type: ignore[misc]
        assert outcome.late == (end == "silence")
        if end != "silence":
            assert isinstance(outcome.error, HandshakeClosed)


async def test_peer_that_stops_reading_during_the_opening(autojump_clock: MockClock) -> None:
    left, right = lockstep_stream_pair()
    ends = Ends(left, right)
    channel, _ = await establish(ends)
    outcome = Outcome()
    await part(lambda: exchange.open_channel(left, channel, Opening(), lambda: b"words"), outcome)
    assert outcome.late


# -- the answer to OPEN ---------------------------------------------------------------


@pytest.mark.parametrize("code", [*Code, 13, 65535])
async def test_each_reject(autojump_clock: MockClock, ends: Ends, code: int) -> None:
    left, right = await after_open(ends)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.reject, ends.right, code, "because")
        with pytest.raises(PeerRejected, match="because") as caught:
            await exchange.read_answer(ends.left, left)
        await ends.left.aclose()
    assert caught.value.reason == code


@pytest.mark.parametrize(
    ("kind", "plaintext"),
    [
        (FrameType.DATA, b"words"),
        (FrameType.FIN, b""),
        (FrameType.RESET, b"\x00\x01"),
        (FrameType.OPEN, b""),
        (FrameType.ACCEPT, b"\x01"),
        (FrameType.REJECT, b"\x00"),
        (FrameType.REJECT, b"\x00\x01" + b"a" * (MAX_TEXT + 1)),
    ],
)
async def test_answer_out_of_place_or_malformed(autojump_clock: MockClock, ends: Ends, kind: FrameType, plaintext: bytes) -> None:
    left, right = await after_open(ends)
    await ends.right.send_all(right.leg.sealer.seal(kind, plaintext))
    with pytest.raises(FrameError):
        await exchange.read_answer(ends.left, left)


@pytest.mark.parametrize("end", ["silence", "eof", "broken"])
async def test_answer_cut_at_each_byte(autojump_clock: MockClock, end: str) -> None:
    for cut in range(20):
        ends = Ends(*memory_stream_pair())
        left, right = await after_open(ends)
        await finish(ends.right, right.seal(FrameType.ACCEPT)[:cut], end)
        outcome = Outcome()
        await part(lambda ends=ends, left=left: exchange.read_answer(ends.left, left), outcome)  # type: ignore[misc]
        assert outcome.late == (end == "silence")
        if end != "silence":
            assert isinstance(outcome.error, Truncated)


async def test_text_of_a_reject_cannot_forge_a_log_line(autojump_clock: MockClock, ends: Ends) -> None:
    left, right = await after_open(ends)
    await ends.right.send_all(right.seal(FrameType.REJECT, encode_reason(1, 'x\n{"event": "forged"}\x1b[31m')))
    with pytest.raises(PeerRejected) as caught:
        await exchange.read_answer(ends.left, left)
    assert str(caught.value).isprintable()


async def test_frames_behind_accept_are_kept(autojump_clock: MockClock, ends: Ends) -> None:
    left, right = await after_open(ends)
    frames = right.seal(FrameType.ACCEPT) + right.seal(FrameType.DATA, b"banner")
    await ends.right.send_all(frames)
    await exchange.read_answer(ends.left, left)
    opened = Opener(left.receive.key, left.receive.counter).open(left.rest)
    assert opened is not None
    assert opened[2] == b"banner"


# -- rejecting ---------------------------------------------------------------


async def test_reject_ends_with_its_reader(autojump_clock: MockClock, ends: Ends) -> None:
    """No longer than the peer keeps the connection open."""
    _, right = await after_open(ends)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.reject, ends.right, Code.DENIED)
        assert len(await all_of(ends.left)) == 22
        await ends.left.send_eof()
    assert trio.current_time() == started


async def test_reject_to_a_peer_that_lingers(autojump_clock: MockClock, ends: Ends) -> None:
    _, right = await after_open(ends)
    started = trio.current_time()
    await right.reject(ends.right, Code.DENIED)
    assert trio.current_time() - started == LINGER


async def test_reject_to_a_peer_that_was_told_often(autojump_clock: MockClock, ends: Ends) -> None:
    _, right = await after_open(ends)
    started = trio.current_time()
    await right.reject(ends.right, Code.OVER_LIMIT, waits=False)
    assert trio.current_time() == started
    assert len(await all_of(ends.left)) == 22


async def test_reject_to_a_peer_that_floods(autojump_clock: MockClock) -> None:
    """Endless bytes neither keep it from ending nor the other tasks from running."""
    left, right = memory_stream_pair()
    _, channel = await after_open(Ends(left, right))

    class Flood(trio.abc.HalfCloseableStream):
        read = 0

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            Flood.read += 1  # without a checkpoint, as a socket that always has bytes
            return bytes(max_bytes or 1000)

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()

        async def wait_send_all_might_not_block(self) -> None:
            await trio.lowlevel.checkpoint()

        async def send_eof(self) -> None:
            await trio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:

        async def reject() -> None:
            await channel.reject(Flood(), Code.DENIED)
            nursery.cancel_scope.cancel()

        nursery.start_soon(reject)
        reads = []
        for _ in range(10):
            await trio.lowlevel.checkpoint()
            reads.append(Flood.read)
        assert reads[-1] < 100
        nursery.cancel_scope.cancel()


async def test_reject_to_a_peer_that_is_gone(autojump_clock: MockClock, ends: Ends) -> None:
    _, right = await after_open(ends)
    await ends.left.aclose()
    await right.reject(ends.right, Code.DENIED)


async def test_accept_to_a_peer_that_is_gone(autojump_clock: MockClock, ends: Ends) -> None:
    _, right = await after_open(ends)
    await ends.left.aclose()
    with pytest.raises(Truncated):
        await right.accept(ends.right)
