"""Certificates and credentials of suite 5 (docs/PROTOCOL.md, section 8)."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

INITIATOR, RESPONDER = 1, 2
LABEL = b"STCP/1 static key binding\0"
HOUR = datetime.timedelta(hours=1)
KEYS: dict[str, Callable[[], Any]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def binding(role: int, static: bytes, not_after: int) -> bytes:
    """The bytes that the leaf's key signs."""
    return LABEL + bytes([role]) + static + not_after.to_bytes(8, "big")


def sign(key: Any, data: bytes) -> bytes:
    """A signature by a leaf's key."""
    if isinstance(key, x25519.X25519PrivateKey):
        return b""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    digest = hashes.SHA384() if key.curve.name == "secp384r1" else hashes.SHA256()
    return bytes(key.sign(data, ec.ECDSA(digest)))


def encode(certificates: list[bytes], not_after: int, signature: bytes, *, version: int = 1, count: int | None = None) -> bytes:
    """A credential; `count` is what it says of itself. [default: the truth]"""
    chain = b"".join(len(der).to_bytes(2, "big") + der for der in certificates)
    head = bytes([version, len(certificates) if count is None else count])
    return head + chain + not_after.to_bytes(8, "big") + len(signature).to_bytes(2, "big") + signature


def decode(credential: bytes) -> tuple[list[bytes], int, bytes]:
    """Certificates, not_after and signature. Raises ValueError."""
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(credential):
            raise ValueError("the credential is cut short")
        return credential[at - size : at]

    version, count = take(2)
    if version != 1 or not count or len(credential) > 16384:
        raise ValueError(f"version {version}, {count} certificates, {len(credential)} bytes")
    certificates = [take(int.from_bytes(take(2), "big")) for _ in range(count)]
    not_after = int.from_bytes(take(8), "big")
    signature = take(int.from_bytes(take(2), "big"))
    if at < len(credential) or not all(certificates):
        raise ValueError("bytes behind the credential, or an empty certificate")
    return certificates, not_after, signature


def verify(key: Any, data: bytes, signature: bytes) -> None:
    """Raise InvalidSignature unless the leaf's public key made the signature."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, data)
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    else:
        digest = hashes.SHA384() if key.curve.name == "secp384r1" else hashes.SHA256()
        key.verify(signature, data, ec.ECDSA(digest))


@dataclass
class Leaf:
    """A certificate with its private key, and the certificates above it, without the root."""

    certificate: x509.Certificate
    key: Any
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> list[bytes]:
        return [each.public_bytes(Encoding.DER) for each in (self.certificate, *self.above)]

    def pem(self) -> str:
        return "".join(each.public_bytes(Encoding.PEM).decode() for each in (self.certificate, *self.above))

    def key_pem(self) -> str:
        return str(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())

    def credential(self, role: int, static: bytes, *, not_after: int | None = None, signer: Any = None, **changes: Any) -> bytes:
        """A credential for a static key. `signer`, `signature` and the changes of `encode` make a wrong one."""
        until = int(time.time()) + 3600 if not_after is None else not_after
        signature = changes.pop("signature", None)
        if signature is None:
            signature = sign(signer or self.key, binding(role, static, until))
        return encode(changes.pop("certificates", self.chain), until, signature, **changes)


class Authority:
    """A root, or an intermediate below another authority.

    Args:
        parent: the authority above. [default: none, this is a root]
        ca: what the basic constraints say; None for no such extension.
        path_length: the path length of the basic constraints.
        kind: type of its key.
        extensions: further extensions: (extension, critical).
    """

    def __init__(
        self,
        parent: Authority | None = None,
        *,
        ca: bool | None = True,
        path_length: int | None = None,
        kind: str = "p256",
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> None:
        self.key = KEYS[kind]()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kit authority {x509.random_serial_number():x}"[:60])])
        self.parent = parent
        builder = _builder(self.name, self.key.public_key(), (parent or self).name, (-HOUR, 24 * HOUR))
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        self.certificate = builder.sign((parent or self).key, _digest((parent or self).key))

    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        *names: str,
        subject: str = "",
        key: Any = None,
        kind: str = "ed25519",
        valid: tuple[datetime.timedelta, datetime.timedelta] = (-HOUR, 24 * HOUR),
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> Leaf:
        """A certificate for DNS names.

        Args:
            names: the DNS names; none makes a certificate without a subject alternative name.
        subject: the common name. [default: none]
            key: its private key. [default: a new one of type `kind`]
            kind: type of the key.
            valid: beginning and end, counted from now.
            extensions: further extensions: (extension, critical).
        """
        key = key or KEYS[kind]()
        builder = _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []), key.public_key(), self.name, valid
        )
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        above, authority = [], self
        while authority.parent is not None:
            above.append(authority.certificate)
            authority = authority.parent
        return Leaf(builder.sign(self.key, _digest(self.key)), key, tuple(above))


def _builder(
    subject: x509.Name, public: Any, issuer: x509.Name, valid: tuple[datetime.timedelta, datetime.timedelta]
) -> x509.CertificateBuilder:
    start, end = (now() + each for each in valid)
    return x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number(), start, end)


def _digest(key: Any) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
