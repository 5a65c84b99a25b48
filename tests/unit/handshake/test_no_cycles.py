"""A failed handshake is gone from memory at once: nothing of it waits for the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

from stcp_proxy.errors import StcpError
from stcp_proxy.handshake import exchange
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import FrameType

from .two_sides import SUITE, Ends, establish, finish, make_initiator, make_responder


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _is_gone(function: Callable[[], Awaitable[object]]) -> bool:
    """Whether the failure of `function` and the failures that led to it are gone."""
    refs: list[weakref.ref[BaseException]] = []
    try:
        await function()
    except StcpError as exc:
        refs = [weakref.ref(one) for one in (exc, exc.__context__) if isinstance(one, StcpError)]
    assert refs, "it did not fail"
    return all(ref() is None for ref in refs)


@pytest.mark.parametrize("said", [b"", b"STCP", bytes(6)], ids=["nothing", "a part of message 1", "garbage"])
async def test_responder(ends: Ends, said: bytes) -> None:
    await finish(ends.left, said, "eof")
    assert await _is_gone(lambda: exchange.respond(ends.right, make_responder(SUITE)))


async def test_initiator(ends: Ends) -> None:
    await finish(ends.right, b"", "eof")
    assert await _is_gone(lambda: exchange.initiate(ends.left, make_initiator(SUITE)))


async def test_initiator_whose_stream_breaks(ends: Ends) -> None:
    await ends.right.aclose()
    assert await _is_gone(lambda: exchange.initiate(ends.left, make_initiator(SUITE)))


async def test_health_check(ends: Ends) -> None:
    """A peer that leaves after the handshake, as each health check does."""
    _, channel = await establish(ends)
    await ends.left.send_eof()
    assert await _is_gone(lambda: exchange.read_open(ends.right, channel))


async def test_refused(ends: Ends) -> None:
    left, right = await establish(ends)
    await ends.left.send_all(left.seal(FrameType.OPEN, Opening().encode()))
    await exchange.read_open(ends.right, right)
    await ends.right.aclose()
    assert await _is_gone(lambda: exchange.read_answer(ends.left, left))
