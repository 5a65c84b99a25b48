"""Revocation: connections end whose key or certificate a reload has taken away, and where the file says so, at its expiry."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from stcp_proxy.config import KeyAuth, TunnelPlan
from stcp_proxy.errors import KeyRevoked
from stcp_proxy.handshake.trust import Trust, revoked
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections

_log = structlog.get_logger("stcp_proxy.tunnel")

_LOOK: Final = 10.0
"""Seconds between two searches for connections whose certificate has expired."""


def uncovered(live: LiveConnections, before: Trust) -> list[Connection]:
    """The connections that the rule `before` admitted and the rule in force does not.

    Unauthenticated connections are left out: they are checked when they authenticate.
    """
    return [each for each in live.all if each not in live.unauthenticated and not live.covers(each, before)]


async def revoke(tunnel: str, live: LiveConnections, before: Trust, grace: float) -> None:
    """End the connections that the rule in force no longer admits.

    Args:
        tunnel: its name, for the log.
        live: its connections.
        before: the rule that admitted them.
        grace: seconds to wait first. A connection whose key has come back meanwhile goes on.
    """
    gone = uncovered(live, before)
    if not gone and grace <= 0:
        return
    by_certificate = [each for each in gone if each.certificate is not None]
    _say("certificate revoked: its connections end", tunnel, by_certificate, grace)
    _say("key revoked: its connections end", tunnel, [each for each in gone if each.certificate is None], grace)
    await trio.sleep(grace)
    still = set(uncovered(live, before))
    for connection in gone:
        if connection in still:
            live.cut(connection, revoked())
    live.end_late()


async def end_expired(plan: TunnelPlan, live: LiveConnections, *, wall_clock: Callable[[], float] = time.time) -> None:
    """End each connection when the certificate of its peer expires, where the plan says so. Runs until cancelled.

    Args:
        plan: the tunnel.
        live: its connections.
        wall_clock: the time, in unix seconds.
    """
    auth = plan.auth
    if not isinstance(auth, KeyAuth) or auth.certificates is None or not auth.certificates.ends_expired:
        return
    while True:
        now = wall_clock()
        gone = [each for each in live.all if each.certificate is not None and each.certificate.has_ended(now)]
        _say("certificate expired: its connections end", plan.name, gone, 0.0)
        for connection in gone:
            live.cut(connection, KeyRevoked("the certificate of this connection's peer has expired"))
        await trio.sleep(_LOOK)


def _say(event: str, tunnel: str, gone: list[Connection], grace: float) -> None:
    if gone:
        peers = sorted({connection.peer for connection in gone})
        _log.warning(event, tunnel=tunnel, connections=len(gone), peers=peers, seconds_left=grace)
