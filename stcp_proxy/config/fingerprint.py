"""Whether two processes have read the same plan, without either showing it to the other.

A fingerprint covers everything that a plan says, secrets among it. It is keyed with a number that is used once, so that it tells
nothing to whoever sees two of them.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from stcp_proxy.config.plan import Plan
from stcp_proxy.config.token import Token
from stcp_proxy.protocol.secret import Secret


def fingerprint(plan: Plan, nonce: bytes) -> str:
    """The fingerprint of a plan.

    Args:
        plan: all of it counts, and the order of its mappings.
        nonce: 16 to 64 random bytes, the same in both processes and used once.

    Raises:
        TypeError: the plan holds something of a kind that is not known here.
    """
    digest = hashlib.blake2b(key=nonce)
    for part in _parts(plan):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """A value as byte strings that no other value has."""
    kind = type(value).__name__
    if isinstance(value, Secret):
        yield from (b"Secret", value.reveal())
    elif isinstance(value, Token):
        yield from (b"Token", value.reveal().encode())
    elif isinstance(value, bytes):
        yield from (b"bytes", value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        yield from (kind.encode(), len(fields).to_bytes(8, "big"))
        for field in fields:
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from (b"Mapping", len(value).to_bytes(8, "big"))
        for key, item in value.items():
            yield from _parts(key)
            yield from _parts(item)
    elif isinstance(value, tuple | list):
        yield from (b"tuple", len(value).to_bytes(8, "big"))
        for item in value:
            yield from _parts(item)
    elif isinstance(value, frozenset):
        yield from (b"frozenset", len(value).to_bytes(8, "big"))
        for parts in sorted(list(_parts(item)) for item in value):
            yield from parts
    elif value is None or isinstance(value, enum.Enum | str | bool | int | float):
        yield from (kind.encode(), repr(value).encode())
    elif isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        yield from (kind.encode(), str(value).encode())
    else:
        raise TypeError(f"a {kind} in a plan has no fingerprint")
