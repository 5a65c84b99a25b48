"""Handshake and opening over any stream, up to the point where an engine takes over (PROTOCOL.md sections 1 and 3).

    initiator                          responder
    message 1            ->
                         <-            message 2
    OPEN, DATA at once   ->            (authenticates OPEN, only then dials)
                         <-            ACCEPT, or REJECT

The functions raise what went wrong as `StcpError`, never a stream's own exception. Cancelling one leaves the stream in an unknown
state: close it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import trio

from stcp_proxy.errors import (
    ConnectCheck,
    FirstFrameError,
    FirstFrameNotAuthentic,
    FrameError,
    FrameNotAuthentic,
    HandshakeClosed,
    HandshakeTimedOut,
    MalformedHandshake,
    NotStcp,
    OverLimit,
    PeerLeft,
    PeerRejected,
    StcpError,
    Truncated,
)
from stcp_proxy.net import path_mtu
from stcp_proxy.net.first_steps import in_task, soon_readable
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, CertifiedResponder
from stcp_proxy.protocol.greeting import protocol_of
from stcp_proxy.protocol.handshake import Answer, Established, Initiator, Responder
from stcp_proxy.protocol.leg import Leg, State
from stcp_proxy.protocol.opening import Opening, decode_reason, encode_keep, encode_reason
from stcp_proxy.protocol.responder_choice import ResponderChoice
from stcp_proxy.protocol.wire import FrameType, Role, Suite
from stcp_proxy.relay.engine import DirectionKey, WireLeg

AnyResponder: TypeAlias = Responder | CertifiedResponder | ResponderChoice

_READ: Final = 32768
LINGER: Final = 2.0
"""Seconds that a refused peer is still listened to, so that TCP does not destroy REJECT on its way."""


class Channel:
    """The frames of a wire leg while no engine carries it: keys, counters, and bytes read too far.

    Args:
        role: this side's role in the handshake.
        established: the handshake's result.
        unsent: the last handshake message, which goes out with the first frame.

    Attributes:
        established: the handshake's result.
        leg: the state of the leg.
        rest: bytes that were read and are not opened yet.
    """

    __slots__ = ("_unsent", "established", "leg", "rest")

    def __init__(self, role: Role, established: Established, *, unsent: bytes = b"") -> None:
        self.established = established
        self._unsent = unsent
        self.leg = Leg(role, established)
        self.rest = established.rest

    @property
    def send(self) -> DirectionKey:
        """Cipher state towards the peer, for the handover."""
        return DirectionKey(self.leg.sealer.key, self.leg.sealer.counter)

    @property
    def receive(self) -> DirectionKey:
        """Cipher state from the peer, for the handover."""
        return DirectionKey(self.leg.opener.key, self.leg.opener.counter)

    def resume(self, given: WireLeg) -> None:
        """Take the leg back from an engine after both FINs."""
        self.leg.resume(given.sent, given.received)
        self.rest = given.rest

    def seal(self, kind: FrameType, plaintext: bytes = b"") -> bytes:
        """One frame, behind the last handshake message where that has not been sent."""
        unsent, self._unsent = self._unsent, b""
        return unsent + self.leg.seal(kind, plaintext)

    def next_frame(self) -> tuple[FrameType, bytes] | None:
        """The next frame of `rest`: (type, plaintext); None while it is incomplete.

        Raises:
            FrameError: malformed, out of place or not authentic.
        """
        received = self.leg.open(self.rest) if self.rest else None
        if received is None or received.kind is None:
            return None
        self.rest = self.rest[received.used :]
        return received.kind, received.plaintext

    async def read_frame(self, stream: trio.abc.ReceiveStream) -> tuple[FrameType, bytes]:
        """The next frame: (type, plaintext).

        Raises:
            FrameError: malformed, out of place or not authentic.
            Truncated: the wire leg ended or broke.
        """
        while (frame := self.next_frame()) is None:
            self.rest += await _more(stream, partial(Truncated, "the peer closed the wire leg in the middle of the opening"))
        return frame

    async def reject(self, stream: trio.abc.HalfCloseableStream, code: int, text: str = "", *, waits: bool = True) -> None:
        """Answer OPEN with REJECT, then listen for a moment so that it arrives. Without effect once ACCEPT is sent.

        Args:
            stream: the wire leg.
            code: why.
            text: goes with it.
            waits: whether to listen. Without it, REJECT is lost where the peer sends more before it arrives.
        """
        if not self.leg.may_send(FrameType.REJECT):
            return
        await in_task()
        with trio.move_on_after(LINGER):
            try:
                await stream.send_all(self.seal(FrameType.REJECT, encode_reason(code, text)))
                await stream.send_eof()
                while waits and await stream.receive_some(_READ):
                    await trio.lowlevel.checkpoint()  # a peer that floods us must not keep the deadline from passing
            except (trio.BrokenResourceError, OverLimit):
                return  # the failure that REJECT reports is what counts

    async def accept(self, stream: trio.abc.SendStream, keep: int | None = None) -> None:
        """Answer OPEN with ACCEPT.

        Args:
            stream: the wire leg.
            keep: seconds for which this side can keep the leg; None to close it. Only where OPEN offers to keep it.

        Raises:
            Truncated: the wire leg broke.
        """
        frame = self.seal(FrameType.ACCEPT, encode_keep(keep))
        await send(stream, frame, partial(Truncated, "the wire leg broke before the connection was accepted"))


async def respond(stream: trio.abc.Stream, responder: AnyResponder) -> tuple[Channel, Established]:
    """The responder's half of the handshake. The peer has not authenticated yet: message 1 may be a replay.

    Raises:
        ConnectCheck: the connection ended before its first byte.
        HandshakeError: the handshake failed.
    """
    closed = partial(HandshakeClosed, "the peer closed the connection during the handshake")
    data = await _more(stream, partial(ConnectCheck, "the connection was closed before its first byte"))
    while not isinstance(answer := responder.receive(data), Established):
        if answer is not None:
            await send(stream, answer.reply, closed)
        if isinstance(answer, Answer):
            return Channel(Role.RESPONDER, answer.established), answer.established
        data = await _more(stream, closed)
    return Channel(Role.RESPONDER, answer), answer


async def read_open(stream: trio.abc.ReceiveStream, channel: Channel) -> Opening:
    """The initiator's first frame. When this returns, the peer has authenticated.

    Raises:
        FirstFrameError: not authentic, not OPEN, or malformed.
        PeerLeft: the wire leg ended before it.
        HandshakeClosed: the wire leg ended inside of it.
    """
    try:
        await channel.read_frame(stream)
        return channel.leg.opening
    except Truncated:
        if channel.rest:
            raise HandshakeClosed("the peer closed the connection in the middle of its first frame") from None
        raise PeerLeft("the peer closed the connection before its first frame") from None
    except FrameNotAuthentic:
        raise FirstFrameNotAuthentic("the first frame did not authenticate") from None
    except FrameError as exc:
        raise FirstFrameError(exc.what, remedy=exc.remedy) from None


async def initiate(stream: trio.abc.Stream, initiator: Initiator | CertifiedInitiator, *, opens_at_once: bool = False) -> Channel:
    """The initiator's half of the handshake.

    Args:
        stream: the wire leg.
        initiator: this side of the handshake.
        opens_at_once: whether OPEN follows at once. Then message 3 of a handshake by certificates goes out together with it.

    Raises:
        HandshakeError: with the likely causes.
    """
    closed = partial(
        HandshakeClosed,
        "the peer closed the connection during the handshake",
        remedy="it may not allow this side's key, suite or version, or not speak STCP at all: its log says which",
    )
    await send(stream, initiator.message_1(), closed)
    head = b""
    try:
        while (answer := initiator.receive(data := await _more(stream, closed))) is None:
            head += data
    except MalformedHandshake:
        name = protocol_of(head + data)
        if not name:
            raise
        raise NotStcp(
            f"what answers is no stcp-proxy: its first bytes look like {name}",
            remedy="give the address of `stcp-proxy listen`, not that of the server behind it",
        ) from None
    if isinstance(answer, Established):
        return Channel(Role.INITIATOR, answer)
    if opens_at_once:
        return Channel(Role.INITIATOR, answer.established, unsent=answer.reply)
    await send(stream, answer.reply, closed)
    return Channel(Role.INITIATOR, answer.established)


async def open_channel(stream: trio.abc.Stream, channel: Channel, opening: Opening, early: Callable[[], bytes]) -> int:
    """Send OPEN, and whatever the application has said already at once behind it.

    Args:
        stream: the wire leg.
        channel: the established channel.
        opening: contents of OPEN.
        early: gives the application's first bytes, at most one frame of them; asked once.

    Returns:
        How many bytes of the application's went with OPEN.

    Raises:
        Truncated: the wire leg broke.
    """
    frames = channel.seal(FrameType.OPEN, opening.encode())
    data = early()
    if data:
        frames += channel.seal(FrameType.DATA, data)
    await send(stream, frames, partial(Truncated, "the wire leg broke during the opening"))
    return len(data)


async def read_answer(stream: trio.abc.ReceiveStream, channel: Channel) -> bool:
    """Wait for ACCEPT.

    Returns:
        Whether it came. On a kept leg, OPEN may cross the peer's last frame instead: then the peer acted on nothing.

    Raises:
        PeerRejected: the responder answered with REJECT.
        HandshakeClosed: the wire leg ended without a frame, after this side presented its certificate.
        FrameError: anything else than an answer.
        Truncated: the wire leg ended first.
    """
    try:
        kind, plaintext = await channel.read_frame(stream)
    except Truncated:
        if channel.established.suite is not Suite.HYBRID_CERTIFICATES or channel.leg.connection or channel.rest:
            raise
        raise HandshakeClosed(
            "the peer closed the connection after this side had presented its certificate",
            remedy="it may not accept this side's certificate: its log says why",
        ) from None
    return _is_accepted(channel, kind, plaintext)


async def answer_soon(stream: LegStream, channel: Channel) -> bool | None:
    """Wait for ACCEPT for a moment, without a task.

    Returns:
        As `read_answer`; None where no whole answer came, and `read_answer` has to go on in a task.

    Raises:
        PeerRejected, FrameError: as `read_answer`.
        trio.BrokenResourceError: the wire leg broke.
    """
    if not await soon_readable(stream.socket):
        return None
    channel.rest += stream.receive_nowait(_READ)
    frame = channel.next_frame()
    return None if frame is None else _is_accepted(channel, *frame)


def _is_accepted(channel: Channel, kind: FrameType, plaintext: bytes) -> bool:
    """See `read_answer`."""
    if kind is FrameType.REJECT:
        raise PeerRejected(*decode_reason(plaintext))
    return channel.leg.state is not State.UNUSED


# A failure is made where it is raised. A variable that held it would be part of its own traceback. Such a cycle, and all that the
# session has with it, stays in memory until the garbage collector runs.


async def _more(stream: trio.abc.ReceiveStream, ended: Callable[[], StcpError]) -> bytes:
    try:
        data = bytes(await stream.receive_some(_READ))
    except trio.BrokenResourceError as exc:
        raise _given_up(exc, ended()) from None
    if not data:
        raise ended()
    return data


async def send(stream: trio.abc.SendStream, data: bytes, broken: Callable[[], StcpError]) -> None:
    """Send all of `data`. Raises what `broken` makes, or what says more, where the stream is broken."""
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError as exc:
        raise _given_up(exc, broken()) from None


def _given_up(broken: trio.BrokenResourceError, failure: StcpError) -> StcpError:
    """The failure of a broken stream. In a handshake that TCP gave up, nobody closed: packets were never acknowledged."""
    cause = broken.__cause__
    if isinstance(failure, HandshakeClosed) and isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT:
        return HandshakeTimedOut("TCP gave the connection up: the peer acknowledged nothing", remedy=path_mtu.REMEDY)
    return failure
