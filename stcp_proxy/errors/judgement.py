"""What a failure means for everybody who meets it: declared once, on the failure itself.

The log, the metrics, the choice of the next peer and the health of endpoints all read a `Judgement`. None of them keeps a list
of failures of its own.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final


class Severity(enum.StrEnum):
    """The level of a log line."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogClass(enum.StrEnum):
    """Log lines that `log.quiet` can silence together."""

    CONNECTIONS = "connections"
    """Ordinary ends of connections."""
    HANDSHAKE_ERRORS = "handshake-errors"
    """Failed authentication, on either side: strangers, wrong keys, other versions, silence."""
    CONNECTION_ERRORS = "connection-errors"
    """Every other failure of a connection: targets, peers, the network."""


class NextPeer(enum.Enum):
    """Whether a connection may go to the next peer after a failure."""

    NEVER = enum.auto()
    """The next peer would fail too, or nobody knows what the first one has done."""
    IF_UNHEARD = enum.auto()
    """As long as no byte of the application can have reached a target."""
    ALWAYS = enum.auto()
    """The peer has said that no byte of the application reached its target."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a failure means.

    Attributes:
        severity: the level of its log line.
        log_class: the class that silences its log line; None for a line that is never silenced.
        next_peer: whether the connection may go to the next peer.
        blames_endpoint: whether it marks the endpoint unhealthy.
        seen_by_health_check: whether a health check meets the same failure, and so can tell when it is over.
        is_noise: whether nobody can or need do anything about it. It is not listed among the refusals.
        is_check: whether it is the end of a health check. It is counted as a check and not as a refused connection.
        by_strangers: whether anybody who finds the port of a listen tunnel can cause it. There it is a note, not a fault.
    """

    severity: Severity
    log_class: LogClass | None
    next_peer: NextPeer = NextPeer.NEVER
    blames_endpoint: bool = False
    seen_by_health_check: bool = False
    is_noise: bool = False
    is_check: bool = False
    by_strangers: bool = False

    def may_ask_next_peer(self, *, heard: bool) -> bool:
        """Tell whether the connection may go to the next peer.

        Args:
            heard: whether a byte of the application may have reached a target.
        """
        return self.next_peer is NextPeer.ALWAYS or (self.next_peer is NextPeer.IF_UNHEARD and not heard)


BUG: Final = Judgement(Severity.ERROR, None)
"""A fault of this program."""
REFUSED: Final = Judgement(Severity.WARNING, LogClass.CONNECTION_ERRORS)
"""A connection that every peer or target would refuse, or that this side refuses."""
CLIENT_LEFT: Final = Judgement(Severity.INFO, LogClass.CONNECTION_ERRORS, is_noise=True)
"""An end that the application, or whoever stops this process, wanted."""
UNAUTHENTICATED: Final = Judgement(
    Severity.WARNING, LogClass.HANDSHAKE_ERRORS, NextPeer.IF_UNHEARD, blames_endpoint=True, seen_by_health_check=True
)
"""A handshake that failed."""
STRANGE: Final = replace(UNAUTHENTICATED, by_strangers=True)
"""A handshake that failed as scans and programs of other protocols make it fail."""
HANDSHAKE_CHECK: Final = replace(UNAUTHENTICATED, severity=Severity.DEBUG, is_noise=True, is_check=True)
"""A connection that ended in order after the handshake: a peer's health check."""
CONNECT_CHECK: Final = Judgement(Severity.DEBUG, LogClass.HANDSHAKE_ERRORS, is_noise=True, is_check=True)
"""A connection that ended before its first byte: a load balancer's health check."""
FIRST_FRAME: Final = Judgement(Severity.WARNING, LogClass.HANDSHAKE_ERRORS)
"""A first frame that does not prove the peer's key."""
PROTOCOL_BROKEN: Final = Judgement(Severity.WARNING, LogClass.CONNECTION_ERRORS, blames_endpoint=True)
"""An authenticated peer broke the protocol or did not answer: it may have heard the application."""
LOST: Final = replace(PROTOCOL_BROKEN, next_peer=NextPeer.IF_UNHEARD)
"""The connection to an authenticated peer broke."""
UNREACHABLE: Final = Judgement(
    Severity.WARNING, LogClass.CONNECTION_ERRORS, NextPeer.ALWAYS, blames_endpoint=True, seen_by_health_check=True
)
"""No connection to the endpoint came about."""
REJECTED_HERE: Final = Judgement(Severity.WARNING, LogClass.CONNECTION_ERRORS, NextPeer.ALWAYS, blames_endpoint=True)
"""A peer's refusal for a reason of its own; another peer may accept. Only a connection can tell when the reason is gone."""

ORDINARY_END: Final = Judgement(Severity.INFO, LogClass.CONNECTIONS, is_noise=True)
"""An end that an application wanted, or that the file configures."""
BROKEN_END: Final = Judgement(Severity.WARNING, LogClass.CONNECTION_ERRORS)
"""A relayed connection that broke."""
