"""Trust by certificates: this side's credential, the peers that its rules admit, and what a new rule no longer covers.

Only a tunnel with certificates imports this module: `cryptography.x509` takes memory for the whole life of a process.
"""

from __future__ import annotations

import dataclasses
import os
import time
import weakref
from dataclasses import dataclass
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from stcp_proxy.config.audit import AUDITED, Audit
from stcp_proxy.config.certificate_plan import CertificateAuth, OwnCertificate, Trusted, time_text
from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.binding import SigningKey, make_credential
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.credentials.verifier import Verified, Verifier
from stcp_proxy.errors import CertificateNotAllowed, CredentialRefused
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, CertifiedResponder, Identity
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import KEY_LEN, Role


@dataclass(frozen=True, slots=True)
class Admission:
    """A peer whose certificate is good, and which a rule admits.

    Attributes:
        name: the name that the rule covers.
        rule: the pattern of the rule, as the file has it.
        certificate: everything that the certificate says.
        audited: whether no pattern covers a name of the certificate, and audit mode alone admits it.
    """

    name: str
    rule: str
    certificate: Verified
    audited: bool = False


class Certified:
    """One tunnel's rule for peers with certificates.

    Args:
        auth: the rule of a plan.
        audit: its audit mode; None where it refuses.
    """

    def __init__(self, auth: CertificateAuth, audit: Audit | None = None) -> None:
        self.auth: Final = auth
        self._audit: Final = audit
        self._patterns: Final = [NamePattern(text) for text in auth.allow]
        self._verifier: Final = _verifier(auth.trusted)
        self._identity: Final = _identity(auth.own)

    def initiator(self) -> CertifiedInitiator:
        """The connecting side of one handshake."""
        return CertifiedInitiator(
            self._identity.of(Role.INITIATOR), verify=lambda credential, static: self._admit(credential, static, Role.RESPONDER)
        )

    def responder(self) -> CertifiedResponder:
        """The listening side of one handshake."""
        return CertifiedResponder(
            self._identity.of(Role.RESPONDER), verify=lambda credential, static: self._admit(credential, static, Role.INITIATOR)
        )

    def _admit(self, credential: Credential, static: bytes, role: Role) -> Admission:
        """Decide about a peer.

        Raises:
            CredentialRefused: nobody vouches for it, or no rule admits it.
        """
        verified = self._verifier.verify(credential, static, role=role, now=time.time())
        admission = self._find(verified)
        if admission is None:
            names = ", ".join(verified.names)
            raise CertificateNotAllowed(
                f"no rule of this tunnel admits the peer's certificate: {names} (serial {verified.serial:x}, "
                f"authority {verified.authority}, until {time_text(verified.not_after)})"
            )
        return admission

    def _find(self, verified: Verified) -> Admission | None:
        for pattern in self._patterns:
            for name in verified.names:
                if pattern.matches(name):
                    return Admission(name, pattern.text, verified)
        if self._audit is not None and self._audit.is_on(time.time()):
            return Admission(verified.names[0], AUDITED, verified, audited=True)
        return None

    def covers(self, verified: Verified) -> bool:
        """Whether this rule would also admit a connection that another rule admitted. Expiry is no reason to end it."""
        try:
            self._verifier.check_trust(verified)
        except CredentialRefused:
            return False
        return self._find(verified) is not None

    def under(self, trusted: Trusted) -> Certified:
        """The same names under other authorities and revocations, without audit mode."""
        return Certified(dataclasses.replace(self.auth, trusted=trusted))


class _OwnIdentity:
    """The static key of this process for one certificate, and a credential for each role, made at first use."""

    def __init__(self, own: OwnCertificate) -> None:
        self._own = own
        self._made: dict[Role, Identity] = {}
        key = load_der_private_key(own.key.reveal(), None)
        is_static = isinstance(key, X25519PrivateKey)
        self._static = KeyPair(key if isinstance(key, X25519PrivateKey) else Secret(os.urandom(KEY_LEN)))
        self._signing = None if is_static else cast("SigningKey", key)

    def of(self, role: Role) -> Identity:
        """The key pair and the credential for a role. The credential lasts as long as the certificate."""
        identity = self._made.get(role)
        if identity is None:
            end = int(self._own.facts.not_after)
            static = self._static.public
            credential = make_credential(self._own.chain, self._signing, role=role, static=static, not_after=end)
            identity = self._made[role] = Identity(self._static, credential)
        return identity


_verifiers: weakref.WeakValueDictionary[Trusted, Verifier] = weakref.WeakValueDictionary()
_identities: weakref.WeakValueDictionary[tuple[bytes, ...], _OwnIdentity] = weakref.WeakValueDictionary()
"""One for all tunnels of the process: a peer is verified once, and a reload of something else forgets nobody."""


def _verifier(trusted: Trusted) -> Verifier:
    found = _verifiers.get(trusted)
    if found is None:
        authorities = [
            Authority(
                each.name,
                tuple(x509.load_der_x509_certificate(root.der) for root in each.roots),
                tuple(map(NamePattern, each.names)),
                each.vouches_until,
            )
            for each in trusted.authorities
        ]
        lists = [x509.load_der_x509_crl(each.der) for authority in trusted.authorities for each in authority.lists]
        revoked = trusted.revoked
        revocations = Revocations(keys=revoked.keys, under=revoked.serials, lists=lists)
        found = _verifiers[trusted] = Verifier(authorities, revocations)
    return found


def _identity(own: OwnCertificate) -> _OwnIdentity:
    found = _identities.get(own.chain)
    if found is None:
        found = _identities[own.chain] = _OwnIdentity(own)
    return found
