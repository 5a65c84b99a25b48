"""Failures of a peer that has not authenticated, and connections that end before it could."""

from __future__ import annotations

from stcp_proxy.errors.base import Cause, StcpError
from stcp_proxy.errors.codes import Code
from stcp_proxy.errors.judgement import CONNECT_CHECK, HANDSHAKE_CHECK, STRANGE, UNAUTHENTICATED


class HandshakeError(StcpError):
    """The other side of the wire leg did not complete a handshake that this side may accept."""

    cause = Cause.PEER
    code = Code.PROTOCOL_ERROR
    label = "handshake"
    judgement = UNAUTHENTICATED
    usual_remedy = "find the reason in the peer's log; both sides need the same version"


class NotStcp(HandshakeError):
    """The first bytes belong to another protocol."""

    label = "not_stcp"
    judgement = STRANGE


class VersionRefused(HandshakeError):
    """STCP, but a version this side does not speak."""

    label = "version"
    judgement = UNAUTHENTICATED


class SuiteRefused(HandshakeError):
    """A suite that this side's configuration does not allow."""

    code = Code.DENIED
    label = "suite"
    judgement = UNAUTHENTICATED


class MalformedHandshake(HandshakeError):
    """A length or a key that the format does not allow."""

    label = "malformed"
    judgement = STRANGE
    usual_remedy = "run the same version on both sides; if they do, another program is connected to this port"


class HandshakeNotAuthentic(HandshakeError):
    """A handshake message failed its tag: wrong key, wrong secret, or bytes changed on the way."""

    code = Code.DENIED
    label = "not_authentic"
    judgement = UNAUTHENTICATED
    usual_remedy = "compare the keys: each side names the other's public key, or both hold the same shared secret"


class UnknownPeer(HandshakeError):
    """The peer proved a key that no access rule names.

    Args:
        peer: its public key, 32 bytes: public, so the operator's log may show it.
    """

    code = Code.DENIED
    label = "unknown_peer"
    judgement = UNAUTHENTICATED

    def __init__(self, peer: bytes) -> None:
        super().__init__("the peer's key is not allowed here", remedy="if it should be, add the key shown here to 'allow'")
        self.peer = peer


class MessageReplayed(HandshakeError):
    """A genuine first message that this side has answered already."""

    code = Code.DENIED
    label = "replayed"
    judgement = UNAUTHENTICATED
    usual_remedy = "do nothing: somebody sends again what he has recorded, and gets no answer"


class CredentialRefused(HandshakeError):
    """The peer's credential does not vouch for it."""

    code = Code.DENIED
    label = "credential"
    judgement = UNAUTHENTICATED
    usual_remedy = "compare the peer's certificate with the authorities of this side"


class UnknownAuthority(CredentialRefused):
    """No configured authority issued the peer's certificate."""

    label = "unknown_authority"
    judgement = UNAUTHENTICATED
    usual_remedy = "add the authority to 'authorities', or issue the peer's certificate by one that is there"


class CertificateExpired(CredentialRefused):
    """A certificate of the peer or its binding has expired."""

    label = "certificate_expired"
    judgement = UNAUTHENTICATED
    usual_remedy = "renew the peer's certificate, and compare the clocks of both hosts"


class CertificateNotYetValid(CredentialRefused):
    """A certificate of the peer is not valid yet."""

    label = "certificate_not_yet_valid"
    judgement = UNAUTHENTICATED
    usual_remedy = "compare the clocks of both hosts"


class CertificateRoleRefused(CredentialRefused):
    """The key usage of the peer's certificate does not fit its side."""

    label = "certificate_role"
    judgement = UNAUTHENTICATED
    usual_remedy = "issue the peer's certificate with the extended key usage of its side, or with none"


class CertificateNameRefused(CredentialRefused):
    """The authority may not vouch for the names of the peer's certificate."""

    label = "certificate_name"
    judgement = UNAUTHENTICATED
    usual_remedy = "add the name to 'names' of the authority if it may vouch for it"


class CertificateNotAllowed(CredentialRefused):
    """The peer's certificate is good, and no access rule admits one of its names."""

    label = "certificate_not_allowed"
    judgement = UNAUTHENTICATED
    usual_remedy = "if the peer should be let in, add one of its names to 'allow'"


class CertificateRevoked(CredentialRefused):
    """A certificate in the peer's chain is revoked."""

    code = Code.KEY_REVOKED
    label = "certificate_revoked"
    judgement = UNAUTHENTICATED
    usual_remedy = "issue a new key and certificate for the peer if it should be let in"


class RevocationListOverdue(CredentialRefused):
    """This side insists on a fresh revocation list of the peer's authority, and has none."""

    label = "revocation_list_overdue"
    judgement = UNAUTHENTICATED
    usual_remedy = "fetch the present list from the authority to this host, and reload"


class BindingRefused(CredentialRefused):
    """The peer's credential belongs to another key of the handshake."""

    label = "certificate_binding"
    judgement = UNAUTHENTICATED
    usual_remedy = "run the same version on both sides; if they do, another host presents this certificate"


class CertificateChainRefused(CredentialRefused):
    """The peer's chain of certificates breaks a rule: length, constraints, algorithm or form."""

    label = "certificate_chain"
    judgement = UNAUTHENTICATED
    usual_remedy = "issue the peer's certificate anew within the rules that docs/PROTOCOL.md lists"


class HandshakeTimedOut(HandshakeError):
    """The deadline passed before the peer had authenticated."""

    label = "handshake_timeout"
    judgement = STRANGE
    usual_remedy = "look for a firewall or a busy machine between the two; if the other end is a stranger, do nothing"


class HandshakeClosed(HandshakeError):
    """The peer closed the wire leg during the handshake."""

    label = "handshake_closed"
    judgement = STRANGE
    usual_remedy = "find the reason in the peer's log; if the other end is a stranger, do nothing"


class PeerLeft(HandshakeClosed):
    """The peer completed the handshake and closed before its first frame: a health check, or a connection made ahead."""

    label = "peer_left"
    judgement = HANDSHAKE_CHECK
    usual_remedy = "do nothing: it was a health check, or a connection made ahead and not needed"


class ConnectCheck(StcpError):
    """A connection ended before its first byte: a load balancer's health check, or a port scan."""

    cause = Cause.CLIENT
    code = Code.PROTOCOL_ERROR
    label = "tcp_check"
    judgement = CONNECT_CHECK
    usual_remedy = "do nothing: it was a health check or a port scan"
