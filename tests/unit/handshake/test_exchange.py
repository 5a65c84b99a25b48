"""The handshake over memory streams: both roles and every way to go wrong, on a clock that jumps."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from stcp_proxy.errors import (
    ConnectCheck,
    FirstFrameNotAuthentic,
    HandshakeClosed,
    HandshakeNotAuthentic,
    MalformedHandshake,
    NotStcp,
    StcpError,
    SuiteRefused,
    UnknownPeer,
    VersionRefused,
)
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.protocol.frames import Opener
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import FrameType, Suite

from .two_sides import (
    CLIENT,
    CONFIGURED,
    KEY_SUITES,
    OTHER_SECRET,
    SERVER,
    STRANGER,
    SUITE,
    Ends,
    Outcome,
    establish,
    finish,
    flipped,
    make_initiator,
    make_responder,
    part,
    said_nothing,
)

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
