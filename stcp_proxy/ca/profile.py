"""The certificates and the revocation list that an authority signs (RFC 5280). No I/O and no clock.

Invariants:
- An authority issues no further authorities: its path length is 0.
- A certificate names its purposes by extended key usage, as `stcp_proxy.credentials` checks them.
- A certificate of a peer has no subject: its names are its subject alternative names.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stcp_proxy.credentials.names import DNS

LEEWAY: Final = datetime.timedelta(minutes=1)
"""How far the beginning of a certificate lies in the past: clocks of two hosts differ."""
PURPOSES: Final = {"connect": ExtendedKeyUsageOID.CLIENT_AUTH, "listen": ExtendedKeyUsageOID.SERVER_AUTH}
"""What a certificate may be used for."""
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
    "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def make_authority(
    key: Ed25519PrivateKey, name: str, *, now: datetime.datetime, validity: datetime.timedelta
) -> x509.Certificate:
    """The certificate of a new authority, signed by its own key.

    Args:
        key: its private key.
        name: its name, for people.
        now: the time.
        validity: how long it is valid.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, now, now + validity).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, None)


def make_certificate(
    key: Ed25519PrivateKey,
    authority: x509.Certificate,
    public: Ed25519PublicKey | X25519PublicKey,
    *,
    names: Sequence[str],
    purposes: Sequence[str],
    now: datetime.datetime,
    end: datetime.datetime,
) -> x509.Certificate:
    """A certificate for a peer.

    Args:
        key: private key of the authority.
        authority: its certificate.
        public: the peer's public key. An X25519 key is the Noise static key itself.
        names: names as `stcp_proxy.credentials.names` writes them, at least one.
        purposes: keys of `PURPOSES`, at least one.
        now: the time.
        end: end of the validity.
    """
    alternative: list[x509.GeneralName] = [
        x509.DNSName(name.removeprefix(DNS)) if name.startswith(DNS) else x509.UniformResourceIdentifier(name) for name in names
    ]
    use = "key_agreement" if isinstance(public, X25519PublicKey) else "digital_signature"
    builder = _builder(x509.Name([]), authority.subject, now, end).public_key(public)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(use), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([PURPOSES[each] for each in purposes]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.add_extension(_issuer_key(key), critical=False).sign(key, None)


def make_revocation_list(
    key: Ed25519PrivateKey,
    authority: x509.Certificate,
    *,
    before: x509.CertificateRevocationList | None,
    serials: Sequence[int],
    now: datetime.datetime,
) -> x509.CertificateRevocationList:
    """The next revocation list of an authority.

    The list names the end of the authority as its next update: it changes when a certificate is revoked, not by the clock.

    Args:
        key: private key of the authority.
        authority: its certificate.
        before: the list until now; None for the first one.
        serials: serial numbers to add.
        now: the time.
    """
    number = 1
    if before is not None:
        number += before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    builder = builder.last_update(now).next_update(authority.not_valid_after_utc)
    for entry in before or ():
        builder = builder.add_revoked_certificate(entry)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.add_extension(_issuer_key(key), critical=False).sign(key, None)


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime.datetime, end: datetime.datetime) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(now - LEEWAY).not_valid_after(end)


def _issuer_key(key: Ed25519PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in allowed for name in _USAGES})
