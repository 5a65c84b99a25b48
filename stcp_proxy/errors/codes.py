"""The codes that REJECT and RESET frames carry, and what each means to this side."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors.judgement import REFUSED, REJECTED_HERE, Judgement


class Code(enum.IntEnum):
    """Reasons carried by REJECT and RESET frames (PROTOCOL.md section 2). The numbers are the wire's."""

    DENIED = 1
    UNKNOWN_SERVICE = 2
    TARGET_REFUSED = 3
    TARGET_TIMED_OUT = 4
    TARGET_UNREACHABLE = 5
    OVER_LIMIT = 6
    SHUTTING_DOWN = 7
    PLAIN_RESET = 8
    IDLE_TIMEOUT = 9
    PROTOCOL_ERROR = 10
    KEY_REVOKED = 11
    INTERNAL_ERROR = 12


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a code means to the side that receives it.

    Attributes:
        meaning: in words; the subject is the peer.
        remedy: what to do about it.
        judgement: of a REJECT with this code.
    """

    meaning: str
    remedy: str
    judgement: Judgement = REFUSED


_FACTS: Final = {
    Code.DENIED: _Facts("access denied", "find the rule in the peer's log, and change it if it should admit this side"),
    Code.UNKNOWN_SERVICE: _Facts("unknown service", "name a service that the peer offers to this side"),
    Code.TARGET_REFUSED: _Facts(
        "its target refused the connection", "start the peer's target, or correct the address in the peer's 'to'", REJECTED_HERE
    ),
    Code.TARGET_TIMED_OUT: _Facts(
        "its target did not answer in time", "check the peer's target, and the network between the two", REJECTED_HERE
    ),
    Code.TARGET_UNREACHABLE: _Facts(
        "its target cannot be reached", "correct the address in the peer's 'to'; the peer's log has the reason", REJECTED_HERE
    ),
    Code.OVER_LIMIT: _Facts("over its limit", "raise the limit at the peer if this load is expected", REJECTED_HERE),
    Code.SHUTTING_DOWN: _Facts("it is shutting down", "connect again when the peer runs", REJECTED_HERE),
    Code.PLAIN_RESET: _Facts("its application reset the connection", "look at the application beside the peer"),
    Code.IDLE_TIMEOUT: _Facts(
        "idle for too long", "raise the peer's idle_timeout, or let the application send something now and then"
    ),
    Code.PROTOCOL_ERROR: _Facts("protocol error", "run the same version on both sides; the peer's log has the reason"),
    Code.KEY_REVOKED: _Facts("key revoked", "make a new key, and add its public key to the peer's file"),
    Code.INTERNAL_ERROR: _Facts("internal error", "send the peer's log line to the authors"),
}


def _facts(reason: int) -> _Facts:
    """The facts of a code from the wire, known or not."""
    try:
        return _FACTS[Code(reason)]
    except ValueError:
        return _Facts(f"code {reason}", "run the same version on both sides: this side does not know the code")


def describe(reason: int, text: str = "") -> str:
    """Words for a wire code, and the peer's own text in brackets.

    Args:
        reason: a code as it came from the wire; unknown codes are shown by number.
        text: the peer's text, already decoded; control characters are shown escaped.
    """
    clean = "".join(ch if ch.isprintable() else repr(ch)[1:-1] for ch in text)
    meaning = _facts(reason).meaning
    return f"{meaning} ({clean})" if clean else meaning


def remedy_for(reason: int) -> str:
    """What to do about a REJECT or RESET from the peer.

    Args:
        reason: a code as it came from the wire.
    """
    return _facts(reason).remedy


def judgement_of(reason: int) -> Judgement:
    """The judgement of a REJECT from the peer.

    Args:
        reason: a code as it came from the wire.
    """
    return _facts(reason).judgement
