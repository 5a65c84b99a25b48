"""Seeded inputs, hashes, X25519, and the numbers of the specification."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

TYPES = {"DATA": 0, "FIN": 1, "RESET": 2, "OPEN": 3, "ACCEPT": 4, "REJECT": 5, "BYE": 6}
REKEY_INTERVAL = 1 << 20


def seeded(label: str, size: int = 32) -> bytes:
    """An input that anybody can recompute."""
    return hashlib.shake_256(f"stcp1 test vector: {label}".encode()).digest(size)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac256(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, other: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
