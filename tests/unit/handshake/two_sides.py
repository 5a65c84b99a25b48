"""Both sides of a handshake for tests: keys, initiator and responder, two memory streams and each side's outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from stcp_proxy.errors import StcpError
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.suites import KEY_SUITES as KEY_SUITES
from stcp_proxy.protocol.suites import PSK_SUITES as PSK_SUITES
from stcp_proxy.protocol.wire import Suite

SERVER, CLIENT, STRANGER = (KeyPair(Secret(bytes([n]) * 32)) for n in (1, 2, 3))
SECRET, OTHER_SECRET = (Secret(bytes([n]) * 32) for n in (4, 5))
CONFIGURED = tuple(suite for suite in Suite if suite is not Suite.HYBRID_CERTIFICATES)
"""Suites with keys and shared secrets."""
SUITE = Suite.CLASSIC_KEYS
"""The suite of tests that need one suite only."""
DEADLINE = 10.0


def make_initiator(suite: Suite, *, static: KeyPair = CLIENT, secret: Secret = SECRET, server: KeyPair = SERVER) -> Initiator:
    psk = secret if suite in PSK_SUITES else None
    if suite in KEY_SUITES:
        return Initiator(suite, Credentials(static, psk), remote_static=server.public)
    return Initiator(suite, Credentials(psk=psk))


def make_responder(suite: Suite, *, suites: tuple[Suite, ...] | None = None) -> Responder:
    credentials = Credentials(SERVER if suite in KEY_SUITES else None, SECRET if suite in PSK_SUITES else None)
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


async def establish(ends: Ends, suite: Suite = Suite.CLASSIC_KEYS) -> tuple[Channel, Channel]:
    """Both channels, after the handshake: (initiator's, responder's)."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(part, lambda: exchange.initiate(ends.left, make_initiator(suite)), ends.initiator)
        nursery.start_soon(part, lambda: exchange.respond(ends.right, make_responder(suite)), ends.responder)
    assert isinstance(ends.initiator.result, Channel)
    assert isinstance(ends.responder.result, tuple)
    return ends.initiator.result, ends.responder.result[0]


async def said_nothing(stream: trio.abc.ReceiveStream) -> bool:
    """Whether nothing arrives, however long one waits."""
    with trio.move_on_after(100):
        return not await stream.receive_some()
    return True


def flipped(message: bytes) -> bytes:
    """The same but for one bit."""
    return message[:-1] + bytes([message[-1] ^ 1])


async def finish(stream: trio.abc.HalfCloseableStream, data: bytes, end: str) -> None:
    if data:
        await stream.send_all(data)
    if end == "eof":
        await stream.send_eof()
    elif end == "broken":
        await stream.aclose()
