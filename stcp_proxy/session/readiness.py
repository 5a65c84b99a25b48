"""Whether a tunnel's far target answers: what `ready: target` asks, end to end.

A connect tunnel does what it does for an application, up to the answer: it dials the peer, proves itself, sends OPEN, and has
ACCEPT or REJECT from the far proxy, which has dialled its target by then. A listen tunnel dials the targets of its own `to`.
Nothing is sent to a target, and every connection is ended in order.
"""

from __future__ import annotations

import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.errors import Code, HandshakeClosed, PeerRejected, PeerUnreachable, StcpError, TargetError, TargetTimedOut
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.key_order import Pair
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.socket_options import tune_leg
from stcp_proxy.protocol.opening import Opening, encode_reason
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.upstream.attempt import TRY_NEXT, Attempt
from stcp_proxy.upstream.routes import Way

PATIENCE = 5.0
"""Seconds for all of it: whoever asks whether a proxy is ready does not wait for long."""
_FAREWELL = 1.0
"""Seconds for the far target to end its direction, too."""


async def reach(plan: TunnelPlan, way: Way) -> None:
    """Return when the far target has answered.

    Args:
        plan: the tunnel.
        way: where it dials, whom it expects there and what it asks for.

    Raises:
        StcpError: why it did not.
    """
    if not way.targets.to:
        return
    with trio.move_on_after(PATIENCE):
        with Attempt(way.targets, min(plan.dial_timeout, PATIENCE)) as attempt:
            while True:
                try:
                    dialled = await attempt.dial()
                except TargetError as exc:
                    if plan.mode is Mode.CONNECT:
                        raise PeerUnreachable(f"the peer cannot be reached: {exc.what}", remedy=exc.remedy) from None
                    raise
                if plan.mode is Mode.LISTEN:
                    dialled.sock.close()
                    return
                try:
                    await _ask_by_each_key(plan, way, dialled, attempt)
                except StcpError as exc:
                    attempt.failed(exc)
                    if not attempt.more or (isinstance(exc, PeerRejected) and exc.reason not in TRY_NEXT):
                        raise
                else:
                    return
    raise TargetTimedOut(f"no answer within {PATIENCE:g} s", remedy="look in the far proxy's log for its target")


async def _ask_by_each_key(plan: TunnelPlan, way: Way, dialled: Dialled, attempt: Attempt) -> None:
    """Ask with each pair of keys, in the order of a session; one that is denied is followed by the next."""
    *others, last = way.trust.choice.order(dialled.name, trio.current_time())
    for pair in others:
        try:
            await _authenticate_and_ask(plan, way, dialled, pair)
        except HandshakeClosed:
            dialled = await attempt.again()
        else:
            return
    await _authenticate_and_ask(plan, way, dialled, last)


async def _authenticate_and_ask(plan: TunnelPlan, way: Way, dialled: Dialled, pair: Pair) -> None:
    stream = LegStream(dialled.sock)
    try:
        tune_leg(dialled.sock)
        await ask(stream, await authenticate(stream, plan, way.trust, pair), way.opening)
    finally:
        stream.close()


async def ask(stream: LegStream, channel: exchange.Channel, opening: Opening) -> None:
    """OPEN, up to the far proxy's answer, and the end in order of what was opened.

    Raises:
        PeerRejected: that was the answer.
        FrameError: it was none.
        Truncated: the wire leg ended first.
    """
    await exchange.open_channel(stream, channel, opening, bytes)
    await exchange.read_answer(stream, channel)
    await _say_farewell(stream, channel)


async def _say_farewell(stream: LegStream, channel: exchange.Channel) -> None:
    """End what nothing was sent on: FIN both ways; where the target does not end its own, RESET, so that no connection is left
    behind it.
    """
    try:
        await stream.send_all(channel.seal(FrameType.FIN))
        with trio.move_on_after(_FAREWELL):
            while (await channel.read_frame(stream))[0] == FrameType.DATA:
                await trio.lowlevel.checkpoint()
            return
        await stream.send_all(channel.seal(FrameType.RESET, encode_reason(Code.PLAIN_RESET, "")))
        await stream.send_eof()
    except (StcpError, trio.BrokenResourceError):
        return  # it has answered, and that was the question
