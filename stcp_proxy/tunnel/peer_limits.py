"""Limits for each peer of a tunnel: live connections, and new connections a second.

One peer must not take every place of a listener that others use too. A peer counts by its name in the file, whichever of its
keys it uses. A shared secret names nobody: there, each source host counts as a peer. So it does for peers that audit mode
admits, because a stranger can make any number of keys.

A peer beyond its limit has authenticated, so it is told: REJECT "over its limit". Strangers have no limit of this kind, because
many honest peers may stand behind one address; `lobby` shares the places of unauthenticated connections among their sources.
"""

from __future__ import annotations

import collections
from typing import Final

import trio

from stcp_proxy.config import KeyAuth, TunnelPlan
from stcp_proxy.config.audit import AUDITED
from stcp_proxy.errors import PeerOverLimit
from stcp_proxy.net.source import source_of_client
from stcp_proxy.net.token_buckets import TokenBuckets
from stcp_proxy.session.record import Connection

_TOLD: Final = 1.0
"""Refusals a second of one peer beyond its limit for which this side waits until REJECT was read."""
_TOLD_BURST: Final = 8.0


class PeerLimits:
    """The peers of one tunnel, and what each has."""

    def __init__(self) -> None:
        self._open: Final[collections.Counter[str]] = collections.Counter()
        self._rates: Final = TokenBuckets(0, 0)
        self._told: Final = TokenBuckets(_TOLD, _TOLD_BURST)

    def admit(self, connection: Connection, plan: TunnelPlan) -> None:
        """Count a connection whose peer has authenticated.

        Args:
            connection: its record; `unit` is set.
            plan: the tunnel's plan in force.

        Raises:
            PeerOverLimit: the peer is beyond a limit; `setting` names it.
        """
        unit, who = _unit_of(connection, plan)
        most = plan.places_per_peer
        if most is not None and self._open[unit] >= most:
            raise self._over(unit, f"{who} has {most} connections here, and may have no more", "max_connections_per_peer")
        if plan.rate_per_peer is not None:
            self._rates.rate = self._rates.burst = float(plan.rate_per_peer)
            if not self._rates.take(unit, trio.current_time()):
                what = f"{who} makes more than {plan.rate_per_peer} connections a second"
                raise self._over(unit, what, "rate_per_peer")
        self._open[unit] += 1
        connection.unit = unit

    def _over(self, unit: str, what: str, setting: str) -> PeerOverLimit:
        """A refused connection keeps its place until its peer has read REJECT, so a peer has few of these at a time."""
        return PeerOverLimit(what, setting, often=not self._told.take(unit, trio.current_time()))

    def release(self, connection: Connection) -> None:
        """Count a connection that has ended; one that was never admitted changes nothing."""
        unit, connection.unit = connection.unit, None
        if unit is None:
            return
        self._open[unit] -= 1
        if not self._open[unit]:
            del self._open[unit]


def _unit_of(connection: Connection, plan: TunnelPlan) -> tuple[str, str]:
    """What a connection counts for: a unit, and its name in a message."""
    if isinstance(plan.auth, KeyAuth) and not connection.audited:
        return connection.peer, "the peer"
    host = source_of_client(connection.client).host
    if connection.audited:
        return f"{AUDITED} {host}", "the peer's host"
    return host, "the peer's host" if host else "the peer, and all others on its unix socket,"
