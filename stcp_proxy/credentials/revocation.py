"""Revoked certificates: by public key, by serial number under an issuer, and by revocation lists.

A certificate is never named by a hash of its encoding: an attacker could encode the same certificate in another way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from stcp_proxy.credentials.authority import key_id

Issued: TypeAlias = tuple[bytes, int]
"""The public key of an issuer (SubjectPublicKeyInfo, DER), and the serial number of a certificate that it issued."""


class Revocations:
    """Everything that is revoked. It never changes: a reload makes a new object.

    A list whose next update is overdue keeps its entries. Warnings about it are the caller's.

    Args:
        keys: public keys, as `authority.key_bytes` encodes them.
        issued: certificates by serial number under an issuer's public key.
        under: certificates by serial number and the name of their authority, whichever of its issuers has signed them. A serial
            number of eight bytes or more is random, so it counts under every authority: a peer could present its certificate with
            a cross certificate, and so below another authority.
        lists: revocation lists. A list counts for certificates of the issuer that signed it.

    Raises:
        ValueError: a list has a critical extension, such as that of a delta list, which this side does not know.
    """

    def __init__(
        self,
        *,
        keys: Iterable[bytes] = (),
        issued: Iterable[Issued] = (),
        under: Iterable[tuple[str, int]] = (),
        lists: Iterable[x509.CertificateRevocationList] = (),
    ) -> None:
        self._keys = frozenset(map(key_id, keys))
        self._issued = frozenset(issued)
        self._under = frozenset(under)
        self._random = frozenset(serial for _, serial in self._under if serial >= _RANDOM)
        self._lists = [(crl, frozenset(entry.serial_number for entry in crl)) for crl in lists]
        self._by_issuer: dict[bytes, frozenset[int]] = {}
        for crl, _ in self._lists:
            if any(extension.critical for extension in crl.extensions):
                raise ValueError("a revocation list has a critical extension that is not known")

    def covers(self, key_ids: Iterable[bytes], issued: Iterable[Issued], under: Iterable[tuple[str, int]] = ()) -> bool:
        """Whether one of a chain's keys or certificates is revoked.

        Args:
            key_ids: public keys of the chain, as `authority.key_id` names them.
            issued: issuer's key and serial number of each certificate in the chain.
            under: names of the authorities above each certificate in the chain, and its serial number.
        """
        if not self._keys.isdisjoint(key_ids) or not self._under.isdisjoint(under):
            return True
        return any(each in self._issued or each[1] in self._random or each[1] in self._listed(each[0]) for each in issued)

    def _listed(self, issuer: bytes) -> frozenset[int]:
        """Serial numbers in the lists that the issuer signed. A signature is verified once for each issuer."""
        if not self._lists:
            return frozenset()
        known = self._by_issuer.get(issuer)
        if known is None:
            key = load_der_public_key(issuer)
            known = frozenset().union(*(serials for crl, serials in self._lists if _signed(crl, key)))
            if len(self._by_issuer) < _MOST_ISSUERS:
                self._by_issuer[issuer] = known
        return known


_MOST_ISSUERS = 256
_RANDOM = 1 << 56
_ISSUER_KEYS = (Ed25519PublicKey, EllipticCurvePublicKey, RSAPublicKey)


def _signed(crl: x509.CertificateRevocationList, key: object) -> bool:
    try:
        return isinstance(key, _ISSUER_KEYS) and crl.is_signature_valid(key)
    except (ValueError, TypeError):
        return False
