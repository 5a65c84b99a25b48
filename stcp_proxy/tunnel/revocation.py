"""Revocation: connections end whose key a reload has taken out of the file."""

from __future__ import annotations

import structlog
import trio

from stcp_proxy.handshake.trust import Trust, revoked
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.connections import LiveConnections

_log = structlog.get_logger("stcp_proxy.tunnel")


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
    if not gone:
        return
    peers = sorted({connection.peer for connection in gone})
    event = "key revoked: its connections end"
    _log.warning(event, tunnel=tunnel, connections=len(gone), peers=peers, seconds_left=grace)
    await trio.sleep(grace)
    still = set(uncovered(live, before))
    for connection in gone:
        if connection in still:
            live.cut(connection, revoked())
