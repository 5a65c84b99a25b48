"""Netlink messages and attributes as bytes: packing, and parsing with every length checked.

Only the kernel sends them. They are parsed as strictly as bytes from a peer, because a mistake here would give keys to the wrong
connection.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stcp_proxy.agent.netlink_abi import ALIGN, ATTRIBUTE_HEADER, NLMSG_HEADER, TYPE_MASK

_ORDER: Final = sys.byteorder


class MalformedMessage(Exception):
    """A netlink message that its format does not allow."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message.

    Attributes:
        kind: its type: the number of a family, or NLMSG_ERROR.
        sequence: the number of the request that it answers; 0 for a notification.
        body: the bytes behind its header.
    """

    kind: int
    sequence: int
    body: bytes


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram.

    Raises:
        MalformedMessage: a length is wrong.
    """
    at = 0
    while at < len(datagram):
        if len(datagram) - at < NLMSG_HEADER.size:
            raise MalformedMessage("a netlink header is cut short")
        length, kind, _, sequence, _ = NLMSG_HEADER.unpack_from(datagram, at)
        if not NLMSG_HEADER.size <= length <= len(datagram) - at:
            raise MalformedMessage(f"a netlink message says it has {length} bytes")
        yield Message(kind, sequence, datagram[at + NLMSG_HEADER.size : at + length])
        at += _aligned(length)


def message(kind: int, flags: int, sequence: int, *parts: bytes | bytearray) -> bytearray:
    """Make one netlink message. The caller can overwrite it after it was sent."""
    length = NLMSG_HEADER.size + sum(map(len, parts))
    out = bytearray(length)
    NLMSG_HEADER.pack_into(out, 0, length, kind, flags, sequence, 0)
    at = NLMSG_HEADER.size
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    return out


def pack(attributes: Mapping[int, bytes]) -> bytearray:
    """Make the attributes of a message, in memory that the caller can overwrite.

    Raises:
        ValueError: a value does not fit into the 16-bit length of an attribute.
    """
    out = bytearray(sum(_aligned(ATTRIBUTE_HEADER.size + len(value)) for value in attributes.values()))
    at = 0
    for kind, value in attributes.items():
        length = ATTRIBUTE_HEADER.size + len(value)
        if length > 0xFFFF:
            raise ValueError(f"attribute {kind} has {len(value)} bytes")
        ATTRIBUTE_HEADER.pack_into(out, at, length, kind)
        out[at + ATTRIBUTE_HEADER.size : at + length] = value
        at += _aligned(length)
    return out


def parse(data: bytes) -> dict[int, bytes]:
    """The attributes of a message by type, unknown types included.

    Raises:
        MalformedMessage: an attribute is cut short or comes twice.
    """
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < ATTRIBUTE_HEADER.size:
            raise MalformedMessage("the header of an attribute is cut short")
        length, kind = ATTRIBUTE_HEADER.unpack_from(data, at)
        kind &= TYPE_MASK
        if not ATTRIBUTE_HEADER.size <= length <= len(data) - at:
            raise MalformedMessage(f"attribute {kind} says it has {length} bytes")
        if kind in found:
            raise MalformedMessage(f"attribute {kind} comes twice")
        found[kind] = data[at + ATTRIBUTE_HEADER.size : at + length]
        at += _aligned(length)
    return found


def number(found: Mapping[int, bytes], kind: int, size: int, *, signed: bool = False) -> int:
    """An integer in the order of this machine.

    Raises:
        MalformedMessage: it is missing, or has a different size.
    """
    value = found.get(kind)
    if value is None or len(value) != size:
        found_size = "missing" if value is None else f"{len(value)} bytes"
        raise MalformedMessage(f"attribute {kind} is {found_size}, not {size} bytes")
    return int.from_bytes(value, _ORDER, signed=signed)


def text(found: Mapping[int, bytes], kind: int, most: int) -> str | None:
    """A string; None where the attribute is missing.

    Args:
        found: the attributes.
        kind: its type.
        most: the most bytes that it may have, without the NUL at its end.

    Raises:
        MalformedMessage: it is too long, empty, not UTF-8, or has a NUL inside.
    """
    value = found.get(kind)
    if value is None:
        return None
    value = value.removesuffix(b"\0")
    if not 0 < len(value) <= most or b"\0" in value:
        raise MalformedMessage(f"attribute {kind} is no string of 1 to {most} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedMessage(f"attribute {kind} is not UTF-8") from None


def encode_number(value: int, size: int, *, signed: bool = False) -> bytes:
    """An integer in the order of this machine. Raises OverflowError where it does not fit."""
    return value.to_bytes(size, _ORDER, signed=signed)


def _aligned(length: int) -> int:
    return -(-length // ALIGN) * ALIGN
