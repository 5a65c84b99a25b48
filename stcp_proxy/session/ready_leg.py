"""The connection that makes a wire leg ready: it proves the initiator and leaves the leg idle (PROTOCOL.md section 7).

    initiator                       responder
    OPEN ":ready", FIN   ->
                         <-         ACCEPT, FIN

The responder dials no target. One that does not know the service, or keeps no legs, answers REJECT "unknown service".
"""

from __future__ import annotations

from stcp_proxy.errors import FrameError, StcpError, Truncated
from stcp_proxy.handshake import exchange
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.protocol.leg import State
from stcp_proxy.protocol.opening import Opening, encode_keep
from stcp_proxy.protocol.wire import READY_SERVICE, FrameType


async def make_ready(stream: LegStream, channel: exchange.Channel, keep: int) -> bool:
    """Ask the responder for an idle leg: the initiator's half.

    Args:
        stream: the wire leg.
        channel: its keys, after the handshake.
        keep: seconds for which this side can keep it.

    Returns:
        Whether the leg is idle now. It is not where the responder does not keep it.

    Raises:
        PeerRejected: the responder does not know the service, or refuses the peer.
        FrameError: the answer was another frame.
        Truncated: the leg ended first.
    """
    opening = Opening(service=READY_SERVICE, keep=keep)
    frames = channel.seal(FrameType.OPEN, opening.encode()) + channel.seal(FrameType.FIN)
    await exchange.send(stream, frames, _broken)
    await exchange.read_answer(stream, channel)
    await _read_fin(stream, channel)
    return channel.leg.state is State.IDLE


async def answer_ready(stream: LegStream, channel: exchange.Channel, keep: int) -> None:
    """Leave the leg idle: the responder's half, after OPEN.

    Args:
        stream: the wire leg.
        channel: its keys.
        keep: seconds for which this side can keep it.

    Raises:
        FrameError: another frame than FIN arrived.
        Truncated: the leg ended first.
    """
    frames = channel.seal(FrameType.ACCEPT, encode_keep(keep)) + channel.seal(FrameType.FIN)
    await exchange.send(stream, frames, _broken)
    await _read_fin(stream, channel)


async def _read_fin(stream: LegStream, channel: exchange.Channel) -> None:
    kind, _ = await channel.read_frame(stream)
    if kind is not FrameType.FIN:
        raise FrameError(f"a {kind.name} frame while a wire leg was made ready")


def _broken() -> StcpError:
    return Truncated("the wire leg broke while it was made ready")
