"""The certificate of an authority or an intermediate authority, with what is read of it for every peer below it."""

from __future__ import annotations

import functools
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from stcp_proxy.credentials.authority import key_bytes, key_id
from stcp_proxy.credentials.certificate import Extensions, is_strong

_MOST_ISSUERS: Final = 256
"""Most issuers that are held. An authority decides about their number: a stranger's certificates are none."""


class Issuer:
    """One certificate that may stand above others. Rules are not applied here.

    Args:
        certificate: the certificate.

    Attributes:
        certificate: the certificate.
        subject: its subject.
        start: beginning of its validity, in unix seconds.
        end: end of its validity, in unix seconds.
        extensions: its extensions.
        constraints: its name constraints, or None.
        key: its public key (SubjectPublicKeyInfo, DER).
        key_id: a short name for it.
        is_ed25519: whether it is a key of Ed25519.
        is_strong: whether it is strong enough to sign certificates.

    Raises:
        ValueError, TypeError, UnsupportedAlgorithm: `cryptography` cannot read the certificate.
    """

    __slots__ = (
        "certificate", "constraints", "end", "extensions", "is_ed25519", "is_strong", "key", "key_id", "start", "subject",
    )  # fmt: skip

    def __init__(self, certificate: x509.Certificate) -> None:
        public = certificate.public_key()
        self.certificate: Final = certificate
        self.subject: Final = certificate.subject
        self.start: Final = certificate.not_valid_before_utc.timestamp()
        self.end: Final = certificate.not_valid_after_utc.timestamp()
        self.extensions: Final = Extensions(certificate)
        self.constraints: Final = self.extensions.get(x509.NameConstraints)
        self.key: Final = key_bytes(certificate, public)
        self.key_id: Final = key_id(self.key)
        self.is_ed25519: Final = isinstance(public, Ed25519PublicKey)
        self.is_strong: Final = is_strong(public)


@functools.lru_cache(maxsize=_MOST_ISSUERS)
def issuer_of(certificate: x509.Certificate) -> Issuer:
    """What is known of an issuer. Call it for roots, and for certificates whose signature a root's key has verified."""
    return Issuer(certificate)
