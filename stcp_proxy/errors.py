"""The whole taxonomy of failures: who caused it, its code on the wire, its label in logs and metrics.

Every expected failure is an `StcpError`. Its text is one sentence of the form *what happened: why; what to do*, fit for an
operator's log. One place, `code_for`, turns any exception into what the other side is told.
"""

from __future__ import annotations

import enum
from typing import ClassVar


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


class Cause(enum.StrEnum):
    """Who can do something about a failure."""

    CONFIG = "config"
    PEER = "peer"
    CLIENT = "client"
    TARGET = "target"
    LIMIT = "limit"
    NETWORK = "network"
    OURS = "ours"


class StcpError(Exception):
    """An expected failure.

    Args:
        what: what happened, and why where that is known.
        remedy: what the reader can do about it, an imperative clause; the kind's usual one unless said.
    """

    cause: ClassVar[Cause] = Cause.OURS
    code: ClassVar[Code] = Code.INTERNAL_ERROR
    label: ClassVar[str] = "internal_error"
    usual_remedy: ClassVar[str | None] = None
    """What helps as a rule, where whoever finds the failure knows no better; None where it always has to know."""

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy or self.usual_remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


# -- configuration: said before anything starts, exit status 2 ----------------------------------------------------------


class ConfigError(StcpError):
    """A flag, a file or a key that cannot be used as it is."""

    cause = Cause.CONFIG
    label = "config"


class RulesRefused(StcpError):
    """The system does not take the rules that would intercept connections, or does not give them up."""

    cause = Cause.CONFIG
    label = "rules_refused"


class KeyFileError(ConfigError):
    """A key file or key text that is missing, malformed, or open to others."""

    label = "key_file"


# -- the peer: before it has proved who it is ----------------------------------------------------------------------------


class HandshakeError(StcpError):
    """The other side of the wire leg did not complete a handshake that this side may accept."""

    cause = Cause.PEER
    code = Code.PROTOCOL_ERROR
    label = "handshake"
    usual_remedy = "see in the peer's log what it makes of this side; both need the same version"


class NotStcp(HandshakeError):
    """The first bytes are not STCP's."""

    label = "not_stcp"


class VersionRefused(HandshakeError):
    """STCP, but a version this side does not speak."""

    label = "version"


class SuiteRefused(HandshakeError):
    """A suite that this side's configuration does not allow."""

    code = Code.DENIED
    label = "suite"


class MalformedHandshake(HandshakeError):
    """A length or a key that the format does not allow."""

    label = "malformed"
    usual_remedy = "run the same version on both sides; if they do, somebody else is speaking to this port"


class HandshakeNotAuthentic(HandshakeError):
    """A handshake message failed its tag: wrong key, wrong secret, or bytes changed on the way."""

    code = Code.DENIED
    label = "not_authentic"
    usual_remedy = "compare the keys: each side names the other's public key, or both hold the same shared secret"


class UnknownPeer(HandshakeError):
    """The peer proved a key that no access rule names.

    Args:
        peer: its public key, 32 bytes: public, so the operator's log may show it.
    """

    code = Code.DENIED
    label = "unknown_peer"

    def __init__(self, peer: bytes) -> None:
        super().__init__("the peer's key is not allowed here", remedy="if it should be, add its public key to the access rule")
        self.peer = peer


class HandshakeTimedOut(HandshakeError):
    """The deadline passed before the peer had proved itself."""

    label = "handshake_timeout"
    usual_remedy = "look for a firewall or a busy machine between the two; if it is a stranger, nothing is to be done"


class HandshakeClosed(HandshakeError):
    """The peer closed the wire leg during the handshake."""

    label = "handshake_closed"
    usual_remedy = "look in its log for the reason; if it is a stranger, nothing is to be done"


class PeerLeft(HandshakeClosed):
    """The peer completed the handshake and closed before its first frame: as a rule a probe, or a connection made ahead."""

    label = "peer_left"


class PeerUnreachable(StcpError):
    """No address of the peer could be connected to."""

    cause = Cause.NETWORK
    code = Code.TARGET_UNREACHABLE
    label = "peer_unreachable"
    usual_remedy = "check that `stcp-proxy listen` runs there and no firewall is between"


# -- the peer: afterwards ------------------------------------------------------------------------------------------------


class FrameError(StcpError):
    """A frame that the format or the connection's state does not allow; the connection cannot go on."""

    cause = Cause.PEER
    code = Code.PROTOCOL_ERROR
    label = "bad_frame"
    usual_remedy = "run the same version on both sides, and tell the authors if it happens again"


class FrameNotAuthentic(FrameError):
    """A frame failed its tag: bytes changed on the way."""

    label = "bad_tag"
    usual_remedy = "look for what changes bytes between the two sides: bad hardware, or somebody"


class CounterExhausted(FrameError):
    """A direction has used every nonce it may use."""

    cause = Cause.LIMIT
    label = "counter_exhausted"
    usual_remedy = "connect again: a new connection has new keys"


class Truncated(StcpError):
    """The wire leg ended without FIN: the peer crashed, or somebody cut the connection."""

    cause = Cause.NETWORK
    code = Code.PROTOCOL_ERROR
    label = "truncated"
    usual_remedy = "see in the peer's log whether it was ended there; if not, look at the network between, its NAT and firewalls"


class PeerRejected(StcpError):
    """The peer answered OPEN with REJECT."""

    cause = Cause.PEER
    label = "rejected"

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(f"the peer refused the connection: {describe(reason, text)}", remedy=remedy_for(reason))
        self.reason = reason
        self.text = text


# -- the target and the application ---------------------------------------------------------------------------------------


class ClientGone(StcpError):
    """The application reset its connection before it could be carried."""

    cause = Cause.CLIENT
    code = Code.PLAIN_RESET
    label = "plain_reset"
    usual_remedy = "look at the application: it gave up, or was ended"


class ProxyHeaderRefused(StcpError):
    """Whoever connected sent no PROXY header where one must be, one that is malformed, or one that it may not send."""

    cause = Cause.CLIENT
    code = Code.DENIED
    label = "proxy_header"
    usual_remedy = "let only proxies that send a PROXY header connect here"


class NotIntercepted(StcpError):
    """A connection to a tunnel that takes only what rules send it, and no rule sent this one."""

    cause = Cause.CLIENT
    code = Code.DENIED
    label = "not_intercepted"


class NoRoute(StcpError):
    """The application dialled a destination that the tunnel's routes do not cover."""

    cause = Cause.CLIENT
    code = Code.DENIED
    label = "no_route"


class OwnConnection(StcpError):
    """The rules sent one of the proxy's own connections back to it."""

    cause = Cause.CONFIG
    code = Code.DENIED
    label = "own_connection"


class TargetError(StcpError):
    """The target could not be reached."""

    cause = Cause.TARGET
    code = Code.TARGET_UNREACHABLE
    label = "target_unreachable"


class TargetRefused(TargetError):
    """The target refused the connection."""

    code = Code.TARGET_REFUSED
    label = "target_refused"


class TargetTimedOut(TargetError):
    """The target did not answer before the dial deadline."""

    code = Code.TARGET_TIMED_OUT
    label = "target_timed_out"


class TargetUnreachable(TargetError):
    """No route, no such name, no such socket."""


class ServiceUnknown(StcpError):
    """OPEN names a service that this listener does not offer."""

    cause = Cause.PEER
    code = Code.UNKNOWN_SERVICE
    label = "unknown_service"
    usual_remedy = "name a service that the other side offers"


class Denied(StcpError):
    """OPEN asks for something, or says something, that this listener's rules do not allow to the peer."""

    cause = Cause.PEER
    code = Code.DENIED
    label = "denied"
    usual_remedy = "change the rule if the peer should be let"


# -- limits and our own state ---------------------------------------------------------------------------------------------


class OverLimit(StcpError):
    """A configured limit is reached."""

    cause = Cause.LIMIT
    code = Code.OVER_LIMIT
    label = "over_limit"
    usual_remedy = "raise the limit if this load is meant"


class KeyRevoked(StcpError):
    """A key of this connection's has been taken out of the configuration."""

    cause = Cause.PEER
    code = Code.KEY_REVOKED
    label = "key_revoked"
    usual_remedy = "connect again by a key that both sides name"


class ShuttingDown(StcpError):
    """This side is stopping and takes nothing new."""

    cause = Cause.OURS
    code = Code.SHUTTING_DOWN
    label = "shutting_down"
    usual_remedy = "connect again once it runs"


_MEANING = {
    Code.DENIED: "access denied",
    Code.UNKNOWN_SERVICE: "unknown service",
    Code.TARGET_REFUSED: "its target refused the connection",
    Code.TARGET_TIMED_OUT: "its target did not answer in time",
    Code.TARGET_UNREACHABLE: "its target cannot be reached",
    Code.OVER_LIMIT: "over its limit",
    Code.SHUTTING_DOWN: "it is shutting down",
    Code.PLAIN_RESET: "its application reset the connection",
    Code.IDLE_TIMEOUT: "idle for too long",
    Code.PROTOCOL_ERROR: "protocol error",
    Code.KEY_REVOKED: "key revoked",
    Code.INTERNAL_ERROR: "internal error",
}


def describe(reason: int, text: str = "") -> str:
    """Words for a wire code, with the peer's own text behind it.

    Args:
        reason: a code as it came from the wire; unknown ones are shown by number.
        text: the peer's text, already decoded; control characters are shown escaped.
    """
    try:
        meaning = _MEANING[Code(reason)]
    except ValueError:
        meaning = f"code {reason}"
    clean = "".join(ch if ch.isprintable() else repr(ch)[1:-1] for ch in text)
    return f"{meaning} ({clean})" if clean else meaning


_REMEDIES = {
    Code.DENIED: "see in its log which rule refused, and change that rule if this side should be let in",
    Code.UNKNOWN_SERVICE: "name a service that it offers",
    Code.TARGET_REFUSED: "start the program that it hands on to, or correct the address in its 'to'",
    Code.TARGET_TIMED_OUT: "check the program that it hands on to, and the way there",
    Code.TARGET_UNREACHABLE: "correct the address in its 'to'; its log says what is wrong with it",
    Code.OVER_LIMIT: "raise the limit there if this load is meant",
    Code.SHUTTING_DOWN: "connect again once it runs",
    Code.PLAIN_RESET: "look at the application there",
    Code.IDLE_TIMEOUT: "raise idle_timeout there, or let the application send something now and then",
    Code.PROTOCOL_ERROR: "run the same version on both sides; its log says what it did not understand",
    Code.KEY_REVOKED: "make a new key, and give its public half to the other side",
    Code.INTERNAL_ERROR: "see its log, and tell the authors",
}


def remedy_for(reason: int) -> str:
    """What to do about a REJECT or RESET that came from the peer.

    Args:
        reason: a code as it came from the wire.
    """
    try:
        return _REMEDIES[Code(reason)]
    except ValueError:
        return "run the same version on both sides: this one does not know the code"


def code_for(exc: BaseException) -> Code:
    """The wire code that tells the other side about `exc`."""
    return exc.code if isinstance(exc, StcpError) else Code.INTERNAL_ERROR
