"""Failures of an authenticated peer, and of the way to it."""

from __future__ import annotations

from stcp_proxy.errors.base import Cause, StcpError
from stcp_proxy.errors.codes import Code, describe, judgement_of, remedy_for
from stcp_proxy.errors.ends import EndReason
from stcp_proxy.errors.judgement import FIRST_FRAME, LOST, PROTOCOL_BROKEN, REFUSED, UNREACHABLE


class PeerUnreachable(StcpError):
    """No address of the peer could be connected to."""

    cause = Cause.NETWORK
    code = Code.TARGET_UNREACHABLE
    label = "peer_unreachable"
    judgement = UNREACHABLE
    usual_remedy = "check that `stcp-proxy listen` runs there, and that no firewall is between"


class FrameError(StcpError):
    """A frame that the format or the connection's state does not allow; the connection cannot go on."""

    cause = Cause.PEER
    code = Code.PROTOCOL_ERROR
    label = "bad_frame"
    judgement = PROTOCOL_BROKEN
    usual_remedy = "run the same version on both sides, and tell the authors if it happens again"


class FrameNotAuthentic(FrameError):
    """A frame failed its tag: bytes changed on the way."""

    label = "bad_tag"
    judgement = PROTOCOL_BROKEN
    usual_remedy = "look for what changes bytes between the two sides: broken hardware, a middlebox, an attacker"


class FirstFrameError(FrameError):
    """The peer's first frame, which would complete its authentication, is malformed or out of place."""

    label = "bad_frame"
    judgement = FIRST_FRAME


class FirstFrameNotAuthentic(FirstFrameError):
    """The peer's first frame failed its tag: bytes changed on the way, or a replayed handshake."""

    label = "bad_tag"
    judgement = FIRST_FRAME
    usual_remedy = "do nothing: somebody may have replayed a handshake; the target was not dialled"


class CounterExhausted(FrameError):
    """A direction has used every nonce it may use."""

    cause = Cause.LIMIT
    label = "counter_exhausted"
    judgement = REFUSED
    usual_remedy = "connect again: a new connection has new keys"


class Truncated(StcpError):
    """The wire leg ended without FIN: the peer crashed, or the connection was cut."""

    cause = Cause.NETWORK
    code = Code.PROTOCOL_ERROR
    label = "truncated"
    judgement = LOST
    usual_remedy = EndReason.TRUNCATED.remedy


class PeerRejected(StcpError):
    """The peer answered OPEN with REJECT. What that means depends on the code.

    Args:
        reason: the code, as it came from the wire.
        text: the peer's text.
    """

    cause = Cause.PEER
    label = "rejected"
    judgement = REFUSED

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(f"the peer refused the connection: {describe(reason, text)}", remedy=remedy_for(reason))
        self.reason = reason
        self.text = text
        self.judgement = judgement_of(reason)


class NoAnswer(StcpError):
    """The peer did not answer OPEN in time; its target may have been reached."""

    cause = Cause.TARGET
    code = Code.TARGET_TIMED_OUT
    label = "target_timed_out"
    judgement = PROTOCOL_BROKEN
    usual_remedy = "find the state of the peer's target in the peer's log; without a line there, the network is interrupted"


class ServiceUnknown(StcpError):
    """OPEN names a service that this listener does not offer."""

    cause = Cause.PEER
    code = Code.UNKNOWN_SERVICE
    label = "unknown_service"
    judgement = REFUSED
    usual_remedy = "name a service that this side offers, in the peer's file"


class Denied(StcpError):
    """OPEN asks for something, or says something, that this listener's rules do not allow to the peer."""

    cause = Cause.PEER
    code = Code.DENIED
    label = "denied"
    judgement = REFUSED
    usual_remedy = "change the rule if it should admit the peer"


class KeyRevoked(StcpError):
    """A key of this connection has been removed from the configuration."""

    cause = Cause.PEER
    code = Code.KEY_REVOKED
    label = "key_revoked"
    judgement = REFUSED
    usual_remedy = "connect again with a key that both sides name"
