"""Netlink as bytes, made with `struct` alone, so that a mistake of the product's own functions is not repeated here."""

from __future__ import annotations

import struct


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to its alignment."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
