"""The readiness check of `ready: target`: whether a tunnel's far target answers, end to end.

A connect tunnel takes the same steps as for an application: it connects to the peer, completes the handshake, sends OPEN, and
waits for ACCEPT or REJECT. Before it answers, the far proxy dials its target. A listen tunnel connects to the targets of its own
`to`. No application byte is sent, and every connection is ended in order.
"""

from __future__ import annotations

import socket

import trio

from stcp_proxy.config import Mode, TunnelPlan
from stcp_proxy.errors import Code, StcpError, TargetError, TargetTimedOut
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.net.dial import Dialled
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.opening import Opening, encode_reason
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.upstream.attempt import Attempt, peer_unreachable
from stcp_proxy.upstream.health_check import greet
from stcp_proxy.upstream.routes import Way

PATIENCE = 5.0
"""Seconds for the whole check."""
_FAREWELL = 1.0
"""Seconds for the far target to end its direction."""


async def reach(plan: TunnelPlan, way: Way) -> None:
    """Return when the far target has answered.

    An application's connection goes to the next peer only while no target can have received its bytes. This check treats OPEN
    like such bytes. So it reports a tunnel as ready only where a connection would be served.

    Args:
        plan: the tunnel.
        way: the targets, the keys expected there, and what OPEN asks for.

    Raises:
        StcpError: the failure that an application would meet.
    """
    if not way.targets.to:
        return
    with trio.move_on_after(PATIENCE):
        with Attempt(way.targets, min(plan.dial_timeout, PATIENCE)) as attempt:
            if plan.mode is Mode.LISTEN:
                await greet((await attempt.dial()).sock, plan.hand_on.proxy_protocol)
            else:
                await _Question(plan, way, attempt).ask()
        return
    raise TargetTimedOut(f"no answer within {PATIENCE:g} s", remedy="find the state of the target in the far proxy's log")


class _Question:
    """Asks the peers of a connect tunnel, one after the other.

    Args:
        plan: the tunnel.
        way: see `reach`.
        attempt: the way through the endpoints.
    """

    def __init__(self, plan: TunnelPlan, way: Way, attempt: Attempt) -> None:
        self._plan = plan
        self._way = way
        self._attempt = attempt
        self._opened = False

    async def ask(self) -> None:
        """Return when a peer has answered ACCEPT."""
        await self._attempt.until_served(self._dial, self._ask, heard=lambda: self._opened)

    async def _dial(self) -> Dialled:
        self._opened = False
        try:
            return await self._attempt.dial()
        except TargetError as exc:
            raise peer_unreachable(exc) from None

    async def _ask(self, dialled: Dialled) -> None:
        sockets = [dialled.sock]

        async def connect() -> socket.socket:
            return sockets.pop() if sockets else (await self._attempt.again()).sock

        stream, channel, _ = await authenticate(connect, self._plan, self._way.trust, address=dialled.name)
        try:
            self._opened = True
            await ask(stream, channel, self._way.opening)
        finally:
            stream.close()


async def ask(stream: LegStream, channel: exchange.Channel, opening: Opening) -> None:
    """Send OPEN, wait for the far proxy's answer, and end the connection in order.

    Raises:
        PeerRejected: the answer was REJECT.
        FrameError: the answer was another frame.
        Truncated: the wire leg ended first.
    """
    await exchange.open_channel(stream, channel, opening, bytes)
    await exchange.read_answer(stream, channel)
    await _end_in_order(stream, channel)


async def _end_in_order(stream: LegStream, channel: exchange.Channel) -> None:
    """End the connection with FIN both ways. Where the target does not end its direction, RESET closes the far connection."""
    try:
        await stream.send_all(channel.seal(FrameType.FIN))
        with trio.move_on_after(_FAREWELL):
            while (await channel.read_frame(stream))[0] == FrameType.DATA:
                await trio.lowlevel.checkpoint()
            return
        await stream.send_all(channel.seal(FrameType.RESET, encode_reason(Code.PLAIN_RESET, "")))
        await stream.send_eof()
    except (StcpError, trio.BrokenResourceError):
        return  # ACCEPT came before, so the target answers
