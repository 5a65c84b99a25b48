"""Certificate authorities that may vouch for peers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stcp_proxy.credentials.names import NamePattern


@dataclass(frozen=True, slots=True)
class Authority:
    """One entry of `authorities`.

    Attributes:
        name: its name in the configuration.
        roots: certificates that are trusted; several while one replaces another.
        names: patterns for the names that it may vouch for; empty for all names.
        vouches_until: time from which its certificates are refused, because a revocation list is overdue; in unix seconds.
    """

    name: str
    roots: tuple[x509.Certificate, ...]
    names: tuple[NamePattern, ...] = ()
    vouches_until: float = math.inf

    def vouches_for(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of `names` that this authority may vouch for."""
        if not self.names:
            return tuple(names)
        return tuple(name for name in names if any(pattern.matches(name) for pattern in self.names))


def key_bytes(certificate: x509.Certificate, key: CertificatePublicKeyTypes | None = None) -> bytes:
    """The public key of a certificate in one canonical encoding (SubjectPublicKeyInfo, DER).

    Args:
        certificate: the certificate.
        key: its key, where it has been read.
    """
    return (certificate.public_key() if key is None else key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: bytes) -> bytes:
    """A short name for a public key in its canonical encoding: 32 bytes. Memory is its only reason."""
    return hashlib.sha256(key).digest()
