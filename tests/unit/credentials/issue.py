"""Authorities and certificates for tests, in the profiles of common issuers."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.binding import make_credential
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.verifier import Verified, Verifier
from stcp_proxy.protocol.credential import Credential, decode_credential
from stcp_proxy.protocol.wire import Role

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
SECONDS = NOW.timestamp()
DAY = datetime.timedelta(days=1)
STATIC = bytes(range(32))
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH

KEYS = {
    "ed25519": Ed25519PrivateKey.generate,
    "p256": lambda: generate_private_key(SECP256R1()),
    "p384": lambda: generate_private_key(SECP384R1()),
    "rsa": lambda: rsa_key(65537, 2048),
    "x25519": X25519PrivateKey.generate,
}


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def usage(*allowed: str) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    flags = {name: name in allowed for name in names.split()}
    return x509.KeyUsage(**flags, encipher_only=False, decipher_only=False)


@dataclass
class Issued:
    """A certificate with its private key. An authority can issue others."""

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...] = field(default=())

    def issue(self, kind: str = "p256", *, san: tuple[Any, ...] | None = None, **kwargs: Any) -> Issued:
        """A certificate under this one. `chain` are the intermediates that the peer presents with it."""
        return make(kind, issuer=self, san=(x509.DNSName("app.prod.internal"),) if san is None else san, **kwargs)

    def authority(self, kind: str = "p256", **kwargs: Any) -> Issued:
        """An intermediate authority under this one."""
        return make(kind, issuer=self, ca=True, **kwargs)


def make(
    kind: str,
    *,
    issuer: Issued | None = None,
    name: str = "",
    ca: bool = False,
    path_length: int | None = None,
    san: tuple[Any, ...] = (),
    eku: tuple[Any, ...] = (),
    key_usage: x509.KeyUsage | str | None = "usual",
    start: datetime.timedelta = -DAY,
    end: datetime.timedelta = 30 * DAY,
    basic: bool = True,
    extra: tuple[tuple[Any, bool], ...] = (),
    serial: int | None = None,
    key: Any = None,
    subject: x509.Name | None = None,
) -> Issued:
    """A certificate. Without an issuer it is a root."""
    key = key or KEYS[kind]()
    ca = ca or issuer is None
    if subject is None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or f"{kind} authority")] if ca or name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(NOW + start)
        .not_valid_after(NOW + end)
    )
    if basic:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
    if key_usage == "usual":
        key_usage = usage("key_cert_sign", "crl_sign") if ca else usage("digital_signature", "key_agreement")
    if isinstance(key_usage, x509.KeyUsage):
        builder = builder.add_extension(key_usage, critical=True)
    if eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=not subject)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    signer = issuer.key if issuer else key
    certificate = builder.sign(signer, None if isinstance(signer, Ed25519PrivateKey) else hashes.SHA256())
    below_root = issuer is not None and ca
    chain = ((certificate,) if below_root else ()) + (issuer.chain if issuer else ())
    return Issued(certificate, key, chain)


def credential(
    leaf: Issued,
    *,
    role: Role = Role.INITIATOR,
    static: bytes = STATIC,
    not_after: int | None = None,
    intermediates: tuple[x509.Certificate, ...] | None = None,
) -> Credential:
    """The credential that the holder of `leaf` presents."""
    chain = (leaf.certificate, *(leaf.chain if intermediates is None else intermediates))
    ders = tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)
    signs = None if isinstance(leaf.key, X25519PrivateKey) else leaf.key
    end = int(SECONDS) + 86400 if not_after is None else not_after
    return decode_credential(make_credential(ders, signs, role=role, static=static, not_after=end))


def trusted(*roots: Issued, name: str = "prod", names: tuple[str, ...] = ()) -> Authority:
    return Authority(name, tuple(root.certificate for root in roots), tuple(map(NamePattern, names)))


def verify(verifier: Verifier, leaf: Issued, *, role: Role = Role.INITIATOR, now: float = SECONDS, **kwargs: Any) -> Verified:
    """Show a leaf's credential to a verifier."""
    static = leaf.key.public_key().public_bytes_raw() if leaf.certificate.public_key_algorithm_oid._name == "X25519" else STATIC
    return verifier.verify(credential(leaf, role=role, static=static, **kwargs), static, role=role, now=now)
