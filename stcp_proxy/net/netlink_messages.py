"""Netlink, the kernel's interface of messages: packing them, parsing them with every length checked, and asking for a list.

Only the kernel sends these messages. They are parsed as strictly as bytes from a peer, because a mistake here would give keys to
the wrong connection, or call a host protected that is not. The numbers are the stable interface of Linux: linux/netlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

NETLINK_SOCK_DIAG: Final = 4
NETLINK_NETFILTER: Final = 12
NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLM_F_DUMP: Final = 0x300

_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
_ATTRIBUTE: Final = struct.Struct("=HH")
"""struct nlattr: length with the header, type."""
_ERROR: Final = struct.Struct("=i")
"""Beginning of struct nlmsgerr."""
_ALIGN: Final = 4
_TYPE_MASK: Final = 0x3FFF
"""Bits of an attribute's type; the other two are flags."""
_BATCH: Final = 1 << 18
"""Bytes of one read: more than the kernel puts into one datagram of a list."""
_SEQUENCE: Final = 1
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

    @property
    def error(self) -> int | None:
        """The errno that it brings, 0 for an acknowledgment; None where it is no message of that kind."""
        if self.kind != NLMSG_ERROR or len(self.body) < _ERROR.size:
            return None
        return -int(_ERROR.unpack_from(self.body)[0])


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram.

    Raises:
        MalformedMessage: a length is wrong.
    """
    at = 0
    while at < len(datagram):
        if len(datagram) - at < _HEADER.size:
            raise MalformedMessage("a netlink header is cut short")
        length, kind, _, sequence, _ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= length <= len(datagram) - at:
            raise MalformedMessage(f"a netlink message says it has {length} bytes")
        yield Message(kind, sequence, datagram[at + _HEADER.size : at + length])
        at += _aligned(length)


def message(kind: int, flags: int, sequence: int, *parts: bytes | bytearray) -> bytearray:
    """Make one netlink message. The caller can overwrite it after it was sent."""
    length = _HEADER.size + sum(map(len, parts))
    out = bytearray(length)
    _HEADER.pack_into(out, 0, length, kind, flags, sequence, 0)
    at = _HEADER.size
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    return out


def pack(values: Mapping[int, bytes]) -> bytearray:
    """Make the attributes of a message, in memory that the caller can overwrite.

    Raises:
        ValueError: a value does not fit into the 16-bit length of an attribute.
    """
    out = bytearray(sum(_aligned(_ATTRIBUTE.size + len(value)) for value in values.values()))
    at = 0
    for kind, value in values.items():
        length = _ATTRIBUTE.size + len(value)
        if length > 0xFFFF:
            raise ValueError(f"attribute {kind} has {len(value)} bytes")
        _ATTRIBUTE.pack_into(out, at, length, kind)
        out[at + _ATTRIBUTE.size : at + length] = value
        at += _aligned(length)
    return out


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message in their order: type without flags, and value.

    Raises:
        MalformedMessage: an attribute is cut short.
    """
    at = 0
    while at < len(data):
        if len(data) - at < _ATTRIBUTE.size:
            raise MalformedMessage("the header of an attribute is cut short")
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        kind &= _TYPE_MASK
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise MalformedMessage(f"attribute {kind} says it has {length} bytes")
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)


def parse(data: bytes) -> dict[int, bytes]:
    """The attributes of a message by type, unknown types included.

    Raises:
        MalformedMessage: an attribute is cut short or comes twice.
    """
    found: dict[int, bytes] = {}
    for kind, value in attributes(data):
        if kind in found:
            raise MalformedMessage(f"attribute {kind} comes twice")
        found[kind] = value
    return found


def parse_prefix(data: bytes) -> dict[int, bytes]:
    """The attributes before the first that is malformed, by type. An attribute that comes twice is left out."""
    found: dict[int, bytes] = {}
    with contextlib.suppress(MalformedMessage):
        for kind, value in attributes(data):
            if kind in found:
                del found[kind]
                break
            found[kind] = value
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


def dump(sock: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """Ask the kernel for a list. Returns the bodies of its messages.

    Args:
        sock: a netlink socket that waits, with nothing else under way.
        kind: the type of the request.
        body: its bytes behind the header.

    Raises:
        OSError: the kernel refuses, or its answer makes no sense (EPROTO).
    """
    sock.send(message(kind, NLM_F_REQUEST | NLM_F_DUMP, _SEQUENCE, body))
    while True:
        try:
            for each in messages(sock.recv(_BATCH)):
                if each.kind == NLMSG_DONE:
                    return
                if each.kind == NLMSG_ERROR:
                    code = each.error or errno.EPROTO
                    raise OSError(code, os.strerror(code))
                yield each.body
        except MalformedMessage as exc:
            raise OSError(errno.EPROTO, str(exc)) from None


def _aligned(length: int) -> int:
    return -(-length // _ALIGN) * _ALIGN
