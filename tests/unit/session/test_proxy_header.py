"""Headers that come ahead of a connection: who may send one, and what happens to all else."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
import trio
from harness.sockets import reset
from trio.testing import MockClock

from stcp_proxy.config import AcceptProxy
from stcp_proxy.errors import ClientGone, ConnectCheck, ProxyHeaderRefused, StcpError
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.net.proxy_header import MAX_HEADER
from stcp_proxy.session.proxy_header import read_announcement

ANYBODY = AcceptProxy()
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 52144 5432\r\n"
BINARY = bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + b"\xcb\xb0\x15\x38"


@pytest.fixture
def legs() -> Iterator[tuple[socket.socket, LegStream]]:
    """The sender's end, and ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), timeout=10)
        far, _ = listener.accept()
    far.setblocking(False)
    with near, far:
        yield near, LegStream(far)


async def outcome(stream: LegStream, rule: AcceptProxy = ANYBODY) -> StcpError:
    with pytest.raises(StcpError) as caught:
        await read_announcement(stream, rule, timeout=5)
    return caught.value


@pytest.mark.parametrize("data", [LINE, BINARY])
@pytest.mark.parametrize("behind", [b"", b"what the application says"])
async def test_a_header_and_every_byte_behind_it(legs: tuple[socket.socket, LegStream], data: bytes, behind: bytes) -> None:
    near, stream = legs
    near.sendall(data + behind)
    header, rest = await read_announcement(stream, ANYBODY, timeout=5)
    assert str(header.source) == "192.0.2.7:52144"
    assert str(header.destination) == "198.51.100.1:5432"
    assert rest == behind


@pytest.mark.parametrize("data", [LINE, BINARY])
async def test_in_single_bytes(legs: tuple[socket.socket, LegStream], data: bytes) -> None:
    near, stream = legs
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send() -> None:
        for byte in data + b"x":
            near.send(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        header, rest = await read_announcement(stream, ANYBODY, timeout=5)
    assert str(header.source) == "192.0.2.7:52144"
    assert b"x".startswith(rest)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PROXY TCP4 x\r\n", b"PROXY " + b"a" * 200])
async def test_no_header(legs: tuple[socket.socket, LegStream], data: bytes) -> None:
    near, stream = legs
    near.sendall(data)
    assert isinstance(await outcome(stream), ProxyHeaderRefused)


async def test_a_length_that_is_too_large_is_not_waited_for(legs: tuple[socket.socket, LegStream]) -> None:
    near, stream = legs
    near.sendall(BINARY[:14] + (MAX_HEADER - 15).to_bytes(2, "big"))
    assert "are the most" in (await outcome(stream)).what


async def test_closed_inside(legs: tuple[socket.socket, LegStream]) -> None:
    near, stream = legs
    near.sendall(LINE[:20])
    near.close()
    assert isinstance(await outcome(stream), ProxyHeaderRefused)


async def test_a_health_check_is_no_alarm(legs: tuple[socket.socket, LegStream]) -> None:
    near, stream = legs
    near.close()
    assert isinstance(await outcome(stream), ConnectCheck)


@pytest.mark.parametrize(("begun", "failure"), [(b"", ConnectCheck), (LINE[:20], ClientGone)])
async def test_reset(legs: tuple[socket.socket, LegStream], begun: bytes, failure: type[StcpError]) -> None:
    near, stream = legs
    near.sendall(begun)
    reset(near)
    assert isinstance(await outcome(stream), failure)


@pytest.mark.parametrize("begun", [b"", LINE[:-1], BINARY[:-1]])
async def test_a_header_that_never_ends(legs: tuple[socket.socket, LegStream], begun: bytes, autojump_clock: MockClock) -> None:
    near, stream = legs
    near.sendall(begun)
    assert "within 5 s" in (await outcome(stream)).what


@pytest.mark.parametrize(("rule", "may"), [("127.0.0.1", True), ("127.0.0.0/8", True), ("10.0.0.0/8", False), ("[::/0]", False)])
async def test_who_may_send_one(legs: tuple[socket.socket, LegStream], rule: str, may: bool) -> None:
    near, stream = legs
    near.sendall(LINE)
    senders = AcceptProxy((parse_pattern("192.0.2.1"), parse_pattern(rule)))
    if may:
        await read_announcement(stream, senders, timeout=5)
        return
    assert "may not send" in (await outcome(stream, senders)).what
    with contextlib.suppress(trio.BrokenResourceError):
        assert stream.receive_nowait(100) == LINE  # whose word does not count is not read either
