"""Authorities, certificates and revocation lists as files, for tests with real processes. Valid at the time of the test."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as rsa_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
KEYS = {
    "ed25519": Ed25519PrivateKey.generate,
    "p256": lambda: generate_private_key(SECP256R1()),
    "p384": lambda: generate_private_key(SECP384R1()),
    "rsa": lambda: rsa_key(65537, 2048),
    "x25519": X25519PrivateKey.generate,
}


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def san(name: str) -> x509.GeneralName:
    """A subject alternative name: `dns:NAME` or a URI."""
    return x509.DNSName(name.removeprefix("dns:")) if name.startswith("dns:") else x509.UniformResourceIdentifier(name)


@dataclass
class Leaf:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:x}"

    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def write(self, folder: Path, name: str) -> dict[str, str]:
        """Write NAME.crt and NAME-tls.key. Returns the setting `certificate`."""
        put(folder / f"{name}.crt", self.certificate.public_bytes(Encoding.PEM))
        put(folder / f"{name}-tls.key", self.key_pem(), mode=0o600)
        return {"chain": f"{name}.crt", "key": f"{name}-tls.key"}


class TestAuthority:
    """An authority with a root key.

    Args:
        kind: type of its key.
        name: its common name.
    """

    __test__ = False

    def __init__(self, kind: str = "ed25519", name: str = "test authority") -> None:
        self.key: Any = KEYS[kind]()
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = self.renewed()

    @property
    def hash(self) -> Any:
        return None if isinstance(self.key, Ed25519PrivateKey) else hashes.SHA256()

    def renewed(self) -> x509.Certificate:
        """A new certificate for its root key."""
        return self._build(self.subject, self.key.public_key(), -DAY, 90 * DAY, ca=True, names=()).sign(self.key, self.hash)

    def _build(
        self, subject: x509.Name, key: Any, start: Any, end: Any, *, ca: bool, names: tuple[str, ...], purposes: Any = ()
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder(self.subject, subject, key, x509.random_serial_number(), now() + start, now() + end)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([san(name) for name in names]), critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder

    def issue(
        self,
        *names: str,
        kind: str = "ed25519",
        key: Any = None,
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = 30 * DAY,
        ca: bool = False,
        purposes: Any = (),
    ) -> Leaf:
        """A certificate with these names."""
        key = key or KEYS[kind]()
        builder = self._build(x509.Name([]), key.public_key(), start, end, ca=ca, names=names, purposes=purposes)
        return Leaf(builder.sign(self.key, self.hash), key)

    def certify(self, other: TestAuthority) -> x509.Certificate:
        """A certificate for the key of another authority, which is its intermediate then."""
        builder = self._build(other.subject, other.key.public_key(), -DAY, 90 * DAY, ca=True, names=())
        return builder.sign(self.key, self.hash)

    def bundle(self, path: Path, *others: TestAuthority) -> Path:
        """Write its certificate, and those of other authorities, as one bundle."""
        put(path, b"".join(each.root.public_bytes(Encoding.PEM) for each in (self, *others)))
        return path

    def revoke(self, path: Path, *leaves: Leaf, next_update: datetime.timedelta = DAY) -> Path:
        """Write its revocation list."""
        builder = x509.CertificateRevocationListBuilder(self.subject, now() - DAY, now() + next_update)
        for leaf in leaves:
            entry = x509.RevokedCertificateBuilder(leaf.certificate.serial_number, now() - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        put(path, builder.sign(self.key, self.hash).public_bytes(Encoding.PEM))
        return path


def put(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file."""
    path.unlink(missing_ok=True)
    path.touch(mode)
    path.write_bytes(content)


def certificate_files(folder: Path) -> TestAuthority:
    """Write the files that configs/many-tunnels.yaml names: a certificate, its authority, what that has revoked, and headers."""
    authority = TestAuthority()
    leaf = authority.issue("dns:host.prod.internal")
    put(folder / "tls.crt", leaf.certificate.public_bytes(Encoding.PEM))
    put(folder / "tls.key", leaf.key_pem(), mode=0o600)
    authority.bundle(folder / "ca.crt")
    authority.revoke(folder / "ca.crl")
    put(folder / "revoked.txt", b"# nobody so far\n")
    put(folder / "otlp.headers", b"authorization: Bearer 0123456789abcdef\n", mode=0o600)
    return authority
