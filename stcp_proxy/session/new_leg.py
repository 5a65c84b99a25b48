"""Make the wire leg of a connect tunnel: the handshake, and a second one where a reload has replaced the keys of the first."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable

import structlog

from stcp_proxy.config import TunnelPlan
from stcp_proxy.errors import HandshakeClosed, KeyRevoked
from stcp_proxy.handshake.authenticate import authenticate
from stcp_proxy.handshake.trust import revoked
from stcp_proxy.session.access_rule import AccessRule
from stcp_proxy.session.peer_leg import NEVER, Keeper, PeerLeg, now

_log = structlog.get_logger("stcp_proxy.session")


async def new_leg(
    connect: Callable[[], Awaitable[socket.socket]],
    plan: TunnelPlan,
    rule: AccessRule,
    legs: Keeper,
    name: str,
    *,
    step: Callable[[], contextlib.AbstractContextManager[None]],
) -> PeerLeg:
    """Do the handshake. Where the peer closes the connection, try the next pair of keys, or the new access rule, on a new one.

    Args:
        connect: connects to the endpoint. It is called once for each handshake.
        plan: the tunnel.
        rule: the access rule. It is renewed where a reload has replaced it.
        legs: has the present era.
        name: the address of the endpoint as text.
        step: counts and measures each handshake.

    Returns:
        A leg whose peer has authenticated, and which the access rule in force admits.

    Raises:
        StcpError: the last handshake failed, or the rule in force does not admit the peer.
    """

    def log_next_key() -> None:
        why = "the peer does not answer it"
        _log.warning("handshake retried with the next key", tunnel=plan.name, target=name, why=why)

    while True:
        era = legs.era
        try:
            stream, channel, pair = await authenticate(
                connect, plan, rule.trust, address=name, step=step, on_next_key=log_next_key, opens_at_once=True
            )
        except (HandshakeClosed, KeyRevoked):
            if not rule.renew():
                raise
            continue
        if rule.still_admits(channel.established):
            break
        stream.close()
        if not rule.renew():  # the tunnel is gone too
            raise revoked()
    if not rule.trust.choice.is_preferred(pair):
        era = NEVER  # keys are being rotated, and a kept leg would keep the old key in use
    return PeerLeg(stream, channel, (rule.trust.choice, name), name, era, now())
