"""The connecting side's handshake, for whoever needs one: a connection, or a probe."""

from __future__ import annotations

import trio

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import HandshakeTimedOut
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.key_order import Pair
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.protocol.handshake import Credentials, Initiator


async def authenticate(stream: trio.abc.Stream, plan: TunnelPlan, trust: Trust, pair: Pair) -> exchange.Channel:
    """Complete a handshake with the peer at the other end.

    Args:
        stream: the wire leg.
        plan: suite and deadline.
        trust: the access rule.
        pair: which of its keys.

    Raises:
        HandshakeError: it did not come to that. Close the stream.
    """
    credentials = trust.credentials if pair.own is None else Credentials(pair.own)
    initiator = Initiator(plan.suites[0], credentials, remote_static=pair.peer)
    with trio.move_on_after(plan.handshake_timeout):
        return await exchange.initiate(stream, initiator)
    raise HandshakeTimedOut(
        f"the peer did not answer the handshake within {plan.handshake_timeout:g} s",
        remedy="check that `stcp-proxy listen` of the same version runs at that address",
    )
