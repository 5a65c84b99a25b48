"""The access rule of one session, and the rule that a reload may put in its place meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from stcp_proxy.handshake.trust import Trust
from stcp_proxy.protocol.established import Established
from stcp_proxy.session.record import Connection
from stcp_proxy.upstream.routes import Way


class Rules(Protocol):
    """The tunnel of a session: it has the rule in force."""

    @property
    def trust(self) -> Trust:
        """The access rule in force."""

    def adopt(self, connection: Connection, /) -> Trust:
        """Judge a connection by the rule in force from now on. Returns this rule."""


class AccessRule:
    """The rule by which a session does its handshake.

    A reload may replace this side's key, the peer's key, or the secret during a handshake. A connection that has sent no OPEN
    then does another handshake by the new rule. The application has lost nothing by the first one.

    Args:
        trust: the rule when the session began.
        rules: the tunnel; None where its rule never changes.
        connection: the record of the connection.

    Attributes:
        trust: the rule for the next handshake.
    """

    __slots__ = ("_connection", "_rules", "trust")

    def __init__(self, trust: Trust, rules: Rules | None, connection: Connection) -> None:
        self.trust = trust
        self._rules = rules
        self._connection = connection

    def still_admits(self, established: Established) -> bool:
        """Whether the rule in force admits the peer of a handshake by `trust`."""
        return self._rules is None or self._rules.trust.covers(self.trust, self.trust.peer(established))

    def renew(self) -> bool:
        """Take the rule in force for the next handshake. Returns whether there is a different one, by which handshakes begin."""
        if self._rules is None or self._rules.trust is self.trust or self._rules.trust.choice.is_empty:
            return False
        self.trust = self._rules.adopt(self._connection)
        return True


class RouteRules:
    """The rules of one route of an intercepting tunnel. Fulfils `Rules`.

    Args:
        way: the route when the session began.
        ways: gives the routes of the tunnel now.
        tunnel: the tunnel.
    """

    def __init__(self, way: Way, ways: Callable[[], Sequence[Way]], tunnel: Rules) -> None:
        self._way = way
        self._ways = ways
        self._tunnel = tunnel

    @property
    def trust(self) -> Trust:
        """The access rule of the route with the same targets and service; the former one where there is none any more."""
        before = self._way
        for way in self._ways():
            if way.targets.to == before.targets.to and way.opening.service == before.opening.service:
                return way.trust
        return before.trust

    def adopt(self, connection: Connection) -> Trust:
        """See `Rules.adopt`."""
        self._tunnel.adopt(connection)
        return self.trust
