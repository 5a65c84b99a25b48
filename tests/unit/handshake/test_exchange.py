"""Handshake and opening over memory streams: both roles, every way to go wrong, on a clock that jumps."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from stcp_proxy.errors import (
    Code,
    ConnectCheck,
    FirstFrameNotAuthentic,
    FrameError,
    HandshakeClosed,
    HandshakeNotAuthentic,
    MalformedHandshake,
    NotStcp,
    PeerRejected,
    StcpError,
    SuiteRefused,
    Truncated,
    UnknownPeer,
    VersionRefused,
)
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.exchange import LINGER, Channel
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import Opening, encode_reason
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_TEXT, FrameType, Suite

SERVER, CLIENT, STRANGER = (KeyPair(Secret(bytes([n]) * 32)) for n in (1, 2, 3))
SECRET, OTHER_SECRET = (Secret(bytes([n]) * 32) for n in (4, 5))
CONFIGURED = tuple(suite for suite in Suite if suite <= Suite.CLASSIC_PSK)
"""Suites that a configuration can name."""
KEY_SUITES = (Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS)
DEADLINE = 10.0


def make_initiator(suite: Suite, *, static: KeyPair = CLIENT, secret: Secret = SECRET, server: KeyPair = SERVER) -> Initiator:
    if suite in KEY_SUITES:
        return Initiator(suite, Credentials(static=static), remote_static=server.public)
    return Initiator(suite, Credentials(psk=secret))


def make_responder(suite: Suite, *, suites: tuple[Suite, ...] | None = None) -> Responder:
    credentials = Credentials(static=SERVER) if suite in KEY_SUITES else Credentials(psk=SECRET)
    return Responder(suites or (suite,), credentials, allowed={CLIENT.public})


@dataclass
class Outcome:
    """How one side's part ended."""

    result: object = None
    error: StcpError | None = None
    late: bool = False


async def part(function: Callable[[], Awaitable[object]], outcome: Outcome) -> None:
    """Run one side with a deadline, and note its end."""
    try:
        with trio.move_on_after(DEADLINE) as scope:
            outcome.result = await function()
    except StcpError as exc:
        outcome.error = exc
    outcome.late = scope.cancelled_caught


@dataclass
class Ends:
    """Both ends of the wire leg and what came of them."""

    left: trio.abc.HalfCloseableStream
    right: trio.abc.HalfCloseableStream
    initiator: Outcome = field(default_factory=Outcome)
    responder: Outcome = field(default_factory=Outcome)


@pytest.fixture
def ends() -> Ends:
    return Ends(*memory_stream_pair())


async def establish(ends: Ends, suite: Suite = Suite.CLASSIC_KEYS) -> tuple[Channel, Channel]:
    """Both channels, after the handshake: (initiator's, responder's)."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(part, lambda: exchange.initiate(ends.left, make_initiator(suite)), ends.initiator)
        nursery.start_soon(part, lambda: exchange.respond(ends.right, make_responder(suite)), ends.responder)
    assert isinstance(ends.initiator.result, Channel)
    assert isinstance(ends.responder.result, tuple)
    return ends.initiator.result, ends.responder.result[0]


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while part := await stream.receive_some():
        data += part
    return data


async def said_nothing(stream: trio.abc.ReceiveStream) -> bool:
    """Whether nothing arrives, however long one waits."""
    with trio.move_on_after(100):
        return not await stream.receive_some()
    return True


# -- the ordinary way ---------------------------------------------------------------


@pytest.mark.parametrize("suite", CONFIGURED)
async def test_opening(autojump_clock: MockClock, ends: Ends, suite: Suite) -> None:
    left, right = await establish(ends, suite)
    assert left.established.channel_id == right.established.channel_id
    assert (left.established.peer, right.established.peer) == (
        (SERVER.public, CLIENT.public) if suite in KEY_SUITES else (None, None)
    )
    opening = Opening(service="db")
    assert await exchange.open_channel(ends.left, left, opening, lambda: b"early words") == 11
    assert await exchange.read_open(ends.right, right) == opening
    await right.accept(ends.right)
    await exchange.read_answer(ends.left, left)
    # The handover: keys and counters of both ends agree, and the early words are waiting.
    assert left.send == right.receive or (left.send.counter, right.receive.counter) == (2, 1)
    assert left.receive == right.send
    opened = Opener(right.receive.key, right.receive.counter).open(right.rest)
    assert opened is not None
    assert opened[1:] == (FrameType.DATA, b"early words")


async def test_nothing_early(autojump_clock: MockClock, ends: Ends) -> None:
    left, right = await establish(ends)
    assert await exchange.open_channel(ends.left, left, Opening(), lambda: b"") == 0
    await exchange.read_open(ends.right, right)
    assert right.rest == b""
    assert left.send.counter == right.receive.counter == 1


@pytest.mark.parametrize("suite", CONFIGURED)
async def test_byte_by_byte(autojump_clock: MockClock, suite: Suite) -> None:
    """However the stream cuts the messages."""
    a, b = lockstep_stream_pair()

    class Crumbs(trio.abc.Stream):
        def __init__(self, stream: trio.abc.Stream) -> None:
            self._stream = stream

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return bytes(await self._stream.receive_some(1))

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self._stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self._stream.wait_send_all_might_not_block()

        async def aclose(self) -> None:
            await self._stream.aclose()

    initiator, responder = Outcome(), Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(part, lambda: exchange.initiate(Crumbs(a), make_initiator(suite)), initiator)
        nursery.start_soon(part, lambda: exchange.respond(Crumbs(b), make_responder(suite)), responder)
    assert isinstance(initiator.result, Channel)
    assert responder.error is None


# -- the responder and a stranger ---------------------------------------------------------------

SUITE = Suite.CLASSIC_KEYS


def flipped(message: bytes) -> bytes:
    """The same but for one bit."""
    return message[:-1] + bytes([message[-1] ^ 1])


def first(**kwargs: KeyPair) -> bytes:
    return make_initiator(SUITE, **kwargs).message_1()


STRANGERS: dict[str, tuple[Callable[[], bytes], type[StcpError]]] = {
    "wrong-key": (lambda: first(static=STRANGER), UnknownPeer),
    "other-server": (lambda: first(server=STRANGER), HandshakeNotAuthentic),
    "garbage": (lambda: os.urandom(3) * 100, NotStcp),
    "tls": (lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), NotStcp),
    "http": (lambda: b"GET / HTTP/1.1\r\n\r\n", NotStcp),
    "version": (lambda: b"STCP\x02\x02" + first()[6:], VersionRefused),
    "suite": (lambda: b"STCP\x01\x01" + first()[6:], SuiteRefused),
    "no-suite": (lambda: b"STCP\x01\x63" + first()[6:], SuiteRefused),
    "oversized": (lambda: first()[:6] + b"\xff\xff" + bytes(65535), MalformedHandshake),
    "undersized": (lambda: first()[:6] + b"\x00\x00", MalformedHandshake),
    "flipped": (lambda: flipped(first()), HandshakeNotAuthentic),
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_responder_refuses(autojump_clock: MockClock, ends: Ends, name: str) -> None:
    says, error = STRANGERS[name]
    await ends.left.send_all(says())
    await part(lambda: exchange.respond(ends.right, make_responder(SUITE)), ends.responder)
    assert isinstance(ends.responder.error, error)
    assert await said_nothing(ends.left)


@pytest.mark.parametrize("suite", [Suite.HYBRID_PSK, Suite.CLASSIC_PSK])
async def test_responder_refuses_another_secret(autojump_clock: MockClock, ends: Ends, suite: Suite) -> None:
    await ends.left.send_all(make_initiator(suite, secret=OTHER_SECRET).message_1())
    await part(lambda: exchange.respond(ends.right, make_responder(suite)), ends.responder)
    assert isinstance(ends.responder.error, HandshakeNotAuthentic)
    assert "secret" in str(ends.responder.error)
    assert await said_nothing(ends.left)


@pytest.mark.parametrize("end", ["silence", "eof", "broken"])
@pytest.mark.parametrize("suite", CONFIGURED)
async def test_first_message_cut_at_each_byte(autojump_clock: MockClock, suite: Suite, end: str) -> None:
    message = make_initiator(suite).message_1()
    cuts = range(len(message)) if len(message) < 200 else [*range(48), *range(48, len(message), 97), len(message) - 1]
    for cut in cuts:
        ends = Ends(*memory_stream_pair())
        await finish(ends.left, message[:cut], end)
        await part(lambda ends=ends: exchange.respond(ends.right, make_responder(suite)), ends.responder)  # type: ignore[misc]
        assert ends.responder.late == (end == "silence")
        assert ends.responder.result is None
        if end != "silence":
            assert isinstance(ends.responder.error, HandshakeClosed if cut else ConnectCheck)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n"),
        ("MySQL", b"\x4a\x00\x00\x00\x0a8.0.36\x00"),
    ],
)
async def test_initiator_names_the_server_that_it_has_met(autojump_clock: MockClock, ends: Ends, name: str, says: bytes) -> None:
    """Pointed at the server itself instead of the proxy in front of it."""
    await ends.right.send_all(says)
    with pytest.raises(NotStcp, match=f"look like {name}.*give the address of `stcp-proxy listen`"):
        await exchange.initiate(ends.left, make_initiator(SUITE))


async def test_initiator_names_no_server_without_a_sign(autojump_clock: MockClock, ends: Ends) -> None:
    await ends.right.send_all(b"\xff" * 64)
    with pytest.raises(MalformedHandshake):
        await exchange.initiate(ends.left, make_initiator(SUITE))


async def test_responder_names_a_proxy_header(autojump_clock: MockClock, ends: Ends) -> None:
    await ends.left.send_all(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n")
    with pytest.raises(NotStcp, match=r"look like a PROXY header.*at the load balancer"):
        await exchange.respond(ends.right, make_responder(SUITE))


async def finish(stream: trio.abc.HalfCloseableStream, data: bytes, end: str) -> None:
    if data:
        await stream.send_all(data)
    if end == "eof":
        await stream.send_eof()
    elif end == "broken":
        await stream.aclose()


async def test_replayed_first_message_proves_nothing(autojump_clock: MockClock, ends: Ends) -> None:
    """Two responders answer the same message 1; only who made it can go on."""
    noise = make_initiator(SUITE)
    message = noise.message_1()
    for _ in range(2):
        ends = Ends(*memory_stream_pair())
        await ends.left.send_all(message)
        channel, _ = await exchange.respond(ends.right, make_responder(SUITE))
        await ends.left.send_all(b"\x03\x00\x00\x10" + os.urandom(16))
        with pytest.raises(FirstFrameNotAuthentic, match="the target was not dialled"):
            await exchange.read_open(ends.right, channel)


# -- the initiator and what answers ---------------------------------------------------------------


@pytest.mark.parametrize("end", ["silence", "eof", "broken"])
@pytest.mark.parametrize("suite", CONFIGURED)
async def test_second_message_cut_at_each_byte(autojump_clock: MockClock, suite: Suite, end: str) -> None:
    size = len(await second_message(make_initiator(suite).message_1(), suite))
    cuts = range(size) if size < 200 else [*range(40), *range(40, size, 97), size - 1]
    for cut in cuts:
        ends = Ends(*memory_stream_pair())

        async def answer(ends: Ends = ends, cut: int = cut) -> None:
            message = bytes(await ends.right.receive_some(65536))
            await finish(ends.right, (await second_message(message, suite))[:cut], end)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(part, lambda ends=ends: exchange.initiate(ends.left, make_initiator(suite)), ends.initiator)
            nursery.start_soon(answer)
        assert ends.initiator.late == (end == "silence")
        assert ends.initiator.result is None
        if end != "silence":
            assert isinstance(ends.initiator.error, HandshakeClosed)
            assert "its log" in str(ends.initiator.error)


async def second_message(message: bytes, suite: Suite) -> bytes:
    answer = make_responder(suite).receive(message)
    assert answer is not None
    return answer.reply


ANSWERS: dict[str, tuple[Callable[[bytes], bytes], type[StcpError]]] = {
    "garbage": (lambda _: b"\x00\x30" + os.urandom(48), HandshakeNotAuthentic),
    "zero-key": (lambda _: b"\x00\x30" + bytes(48), MalformedHandshake),
    "http": (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", NotStcp),
    "oversized": (lambda _: b"\xff\xff" + bytes(65535), MalformedHandshake),
    "flipped": (flipped, HandshakeNotAuthentic),
    "reflected": (lambda _: b"STCP\x01\x02", MalformedHandshake),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_initiator_refuses(autojump_clock: MockClock, ends: Ends, name: str) -> None:
    change, error = ANSWERS[name]

    async def answer() -> None:
        message = bytes(await ends.right.receive_some(65536))
        await ends.right.send_all(change(await second_message(message, SUITE)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(part, lambda: exchange.initiate(ends.left, make_initiator(SUITE)), ends.initiator)
        nursery.start_soon(answer)
    assert isinstance(ends.initiator.error, error)


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
    await ends.left.send_all(left.seal(FrameType(kind), plaintext))
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
    left, right = await establish(ends)
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
    left, right = await establish(ends)
    await ends.right.send_all(right.seal(kind, plaintext))
    with pytest.raises(FrameError):
        await exchange.read_answer(ends.left, left)


@pytest.mark.parametrize("end", ["silence", "eof", "broken"])
async def test_answer_cut_at_each_byte(autojump_clock: MockClock, end: str) -> None:
    for cut in range(20):
        ends = Ends(*memory_stream_pair())
        left, right = await establish(ends)
        await finish(ends.right, right.seal(FrameType.ACCEPT)[:cut], end)
        outcome = Outcome()
        await part(lambda ends=ends, left=left: exchange.read_answer(ends.left, left), outcome)  # type: ignore[misc]
        assert outcome.late == (end == "silence")
        if end != "silence":
            assert isinstance(outcome.error, Truncated)


async def test_text_of_a_reject_cannot_forge_a_log_line(autojump_clock: MockClock, ends: Ends) -> None:
    left, right = await establish(ends)
    await ends.right.send_all(right.seal(FrameType.REJECT, encode_reason(1, 'x\n{"event": "forged"}\x1b[31m')))
    with pytest.raises(PeerRejected) as caught:
        await exchange.read_answer(ends.left, left)
    assert str(caught.value).isprintable()


async def test_frames_behind_accept_are_kept(autojump_clock: MockClock, ends: Ends) -> None:
    left, right = await establish(ends)
    frames = right.seal(FrameType.ACCEPT) + right.seal(FrameType.DATA, b"banner")
    await ends.right.send_all(frames)
    await exchange.read_answer(ends.left, left)
    opened = Opener(left.receive.key, left.receive.counter).open(left.rest)
    assert opened is not None
    assert opened[2] == b"banner"


# -- rejecting ---------------------------------------------------------------


async def test_reject_ends_with_its_reader(autojump_clock: MockClock, ends: Ends) -> None:
    """No longer than the peer keeps the connection open."""
    _, right = await establish(ends)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.reject, ends.right, Code.DENIED)
        assert len(await all_of(ends.left)) == 22
        await ends.left.send_eof()
    assert trio.current_time() == started


async def test_reject_to_a_peer_that_lingers(autojump_clock: MockClock, ends: Ends) -> None:
    _, right = await establish(ends)
    started = trio.current_time()
    await right.reject(ends.right, Code.DENIED)
    assert trio.current_time() - started == LINGER


async def test_reject_to_a_peer_that_floods(autojump_clock: MockClock) -> None:
    """Endless bytes neither keep it from ending nor the other tasks from running."""
    left, right = memory_stream_pair()
    _, channel = await establish(Ends(left, right))

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
    _, right = await establish(ends)
    await ends.left.aclose()
    await right.reject(ends.right, Code.DENIED)
    with pytest.raises(Truncated):
        await right.accept(ends.right)
