"""Section 8: certificates, the credentials made of them, and payloads that are refused as a credential."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from .primitives import public, seeded

NOT_AFTER = 2_000_000_000


def certificate(name: str, issuer: str, *, authority: bool) -> bytes:
    """A certificate whose bytes anybody can recompute: Ed25519 signatures are deterministic."""
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    key = Ed25519PrivateKey.from_private_bytes(seeded(f"{name} certificate key"))
    issuer_key = Ed25519PrivateKey.from_private_bytes(seeded(f"{issuer} certificate key"))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(seeded(f"{name} serial", 8), "big") | 1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName(f"{name}.example.net")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, None).public_bytes(Encoding.DER)


def credential(who: str, role: int, static: bytes) -> bytes:
    """The credential of one side: leaf and authority, bound to `static`."""
    chain = [certificate(who, "authority", authority=False), certificate("authority", "authority", authority=True)]
    key = Ed25519PrivateKey.from_private_bytes(seeded(f"{who} certificate key"))
    signature = key.sign(binding(role, static))
    return packed(chain, signature)


def binding(role: int, static: bytes) -> bytes:
    return b"STCP/1 static key binding\0" + bytes([role]) + static + NOT_AFTER.to_bytes(8, "big")


def packed(chain: list[bytes], signature: bytes, *, version: int = 1, count: int | None = None) -> bytes:
    out = bytes([version, len(chain) if count is None else count])
    for der in chain:
        out += len(der).to_bytes(2, "big") + der
    return out + NOT_AFTER.to_bytes(8, "big") + len(signature).to_bytes(2, "big") + signature


def credentials() -> list[dict[str, Any]]:
    out = []
    for who, role in (("initiator", 1), ("responder", 2)):
        static = public(seeded(f"{who} static"))
        out.append(
            {
                "name": who,
                "role": role,
                "static": static.hex(),
                "not_after": str(NOT_AFTER),
                "certificates": [
                    certificate(who, "authority", authority=False).hex(),
                    certificate("authority", "authority", authority=True).hex(),
                ],
                "binding": binding(role, static).hex(),
                "signature": Ed25519PrivateKey.from_private_bytes(seeded(f"{who} certificate key"))
                .sign(binding(role, static))
                .hex(),
                "credential": credential(who, role, static).hex(),
            }
        )
    return out


def refused_credentials() -> list[dict[str, Any]]:
    good = packed([b"leaf", b"authority"], b"signature")
    cases = [(f"cut at byte {at}", good[:at]) for at in range(len(good))]
    cases += [
        ("one byte after it", good + b"\0"),
        ("version 0", packed([b"leaf"], b"", version=0)),
        ("version 2", packed([b"leaf"], b"", version=2)),
        ("no certificate", packed([], b"signature")),
        ("an empty certificate", packed([b"leaf", b""], b"signature")),
        ("one certificate fewer than counted", packed([b"leaf"], b"signature", count=2)),
        ("one certificate more than counted", packed([b"leaf", b"authority"], b"signature", count=1)),
        ("a certificate length beyond the limit", b"\x01\x01\x40\x00"),
        ("a signature length beyond the limit", packed([b"leaf"], b"")[:-2] + b"\xff\xff"),
        ("certificates that add up beyond the limit", b"\x01\x02\x30\x00" + bytes([7]) * 0x3000 + b"\x0f\xff"),
        ("one byte above the limit", packed([b"x" * (16384 - 14 + 1)], b"")),
    ]
    return [{"why": why, "credential": data.hex()} for why, data in cases]
