"""The contents of all frames but DATA (PROTOCOL.md section 4).

Attributes are a sequence of type (u8) ‖ length (u16) ‖ value. Unknown types are ignored; a known type comes at most once.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol.wire import (
    ADDRESS_LEN,
    ATTRIBUTE_HEADER_LEN,
    CODE_LEN,
    KEEP_LEN,
    MAX_ATTRIBUTES,
    MAX_KEEP,
    MAX_SERVICE,
    MAX_TEXT,
    Attribute,
    FrameType,
)

_SHORT: Final = 16
"""Bytes of an ACCEPT with KEEP, and some more."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and port: family (u8) ‖ 4 or 16 bytes ‖ port (u16) on the wire."""

    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int

    def encode(self) -> bytes:
        return bytes([self.ip.version]) + self.ip.packed + self.port.to_bytes(2, "big")

    @classmethod
    def decode(cls, value: bytes) -> Endpoint:
        """Raises FrameError unless `value` is exactly one address."""
        if not value or ADDRESS_LEN.get(value[0]) != len(value):
            raise FrameError("an address attribute of a wrong family or length")
        return cls(_ip(value[1:-2]), int.from_bytes(value[-2:], "big"))

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


@functools.lru_cache(maxsize=256)
def _ip(packed: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IP address of 4 or 16 bytes. Cached, because the same few clients connect again and again."""
    return ipaddress.ip_address(packed)


@dataclass(frozen=True, slots=True)
class Opening:
    """The attributes of OPEN. They are authentic, and as true as the initiator is honest.

    Attributes:
        service: name of the service that the initiator asks for, where a listener offers several.
        client: address of the application's client on the initiator's side.
        original: address that this client dialled before it was intercepted.
        keep: seconds for which the initiator can keep the wire leg after this connection; None to close it.
    """

    service: str | None = None
    client: Endpoint | None = None
    original: Endpoint | None = None
    keep: int | None = None

    def encode(self) -> bytes:
        """The plaintext of OPEN.

        Raises:
            ValueError: a value does not fit the format.
        """
        out = b""
        if self.service is not None:
            name = self.service.encode()
            if not 0 < len(name) <= MAX_SERVICE:
                raise ValueError(f"a service name has 1 to {MAX_SERVICE} bytes")
            out += _attribute(Attribute.SERVICE, name)
        if self.client is not None:
            out += _attribute(Attribute.CLIENT, self.client.encode())
        if self.original is not None:
            out += _attribute(Attribute.ORIGINAL, self.original.encode())
        return out + encode_keep(self.keep)

    @classmethod
    def decode(cls, plaintext: bytes) -> Opening:
        """Read OPEN.

        Raises:
            FrameError: truncated, repeated or malformed attributes.
        """
        found = parse_attributes(plaintext)
        service = found.get(Attribute.SERVICE)
        client = found.get(Attribute.CLIENT)
        original = found.get(Attribute.ORIGINAL)
        return cls(
            service=None if service is None else _service(service),
            client=None if client is None else Endpoint.decode(client),
            original=None if original is None else Endpoint.decode(original),
            keep=read_keep(found),
        )


def encode_keep(seconds: int | None) -> bytes:
    """Attribute KEEP, for OPEN or ACCEPT. Without seconds, no bytes.

    Raises:
        ValueError: the seconds are not 1 to MAX_KEEP.
    """
    if seconds is None:
        return b""
    if not 0 < seconds <= MAX_KEEP:
        raise ValueError(f"a wire leg is kept for 1 to {MAX_KEEP} seconds, not {seconds}")
    return _attribute(Attribute.KEEP, seconds.to_bytes(KEEP_LEN, "big"))


def read_keep(attributes: Mapping[int, bytes]) -> int | None:
    """Seconds of attribute KEEP, or None where it is missing.

    Raises:
        FrameError: the value has another length, or is 0.
    """
    value = attributes.get(Attribute.KEEP)
    if value is None:
        return None
    seconds = int.from_bytes(value, "big")
    if len(value) != KEEP_LEN or not seconds:
        raise FrameError(f"a keep attribute is {KEEP_LEN} bytes and not zero")
    return seconds


def read_accept(plaintext: bytes) -> int | None:
    """Seconds of KEEP in ACCEPT, or None where it is missing.

    Raises:
        FrameError: malformed attributes.
    """
    return _read_short(plaintext) if len(plaintext) <= _SHORT else read_keep(parse_attributes(plaintext))


@functools.lru_cache(maxsize=64)
def _read_short(plaintext: bytes) -> int | None:
    """Cached, because a pair of tunnels agrees on the same seconds again and again. Long contents would fill the memory."""
    return read_keep(parse_attributes(plaintext))


def _attribute(kind: Attribute, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def _service(value: bytes) -> str:
    if not 0 < len(value) <= MAX_SERVICE:
        raise FrameError("a service name of a wrong length")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise FrameError("a service name that is not UTF-8") from None


_KNOWN: Final = frozenset(int(attribute) for attribute in Attribute)


def parse_attributes(plaintext: bytes) -> dict[int, bytes]:
    """The attributes of OPEN or ACCEPT by type, unknown types included.

    Raises:
        FrameError: one is cut short, a known one is repeated, or there are more than MAX_ATTRIBUTES.
    """
    found: dict[int, bytes] = {}
    at = count = 0
    while at < len(plaintext):
        count += 1
        if count > MAX_ATTRIBUTES:  # a frame has room for 21,838, and the listener has one thread
            raise FrameError(f"more than {MAX_ATTRIBUTES} attributes")
        start = at + ATTRIBUTE_HEADER_LEN
        if start > len(plaintext):
            raise FrameError("an attribute is cut short")
        kind = plaintext[at]
        end = start + int.from_bytes(plaintext[at + 1 : start], "big")
        if end > len(plaintext):
            raise FrameError("an attribute is cut short")
        if kind in found and kind in _KNOWN:
            raise FrameError(f"attribute {kind} comes twice")
        found[kind] = plaintext[start:end]
        at = end
    return found


def encode_reason(code: int, text: str) -> bytes:
    """The plaintext of RESET or REJECT.

    The text is cut at a character within the format's limit. Characters without an encoding become question marks.
    """
    return code.to_bytes(CODE_LEN, "big") + text.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore").encode()


def decode_reason(plaintext: bytes) -> tuple[int, str]:
    """Code and text of RESET or REJECT.

    Raises:
        FrameError: too short or too long. Bytes that are not UTF-8 are replaced: the frame ends the connection either way.
    """
    if not CODE_LEN <= len(plaintext) <= CODE_LEN + MAX_TEXT:
        raise FrameError(f"a RESET or REJECT of {len(plaintext)} bytes")
    return int.from_bytes(plaintext[:CODE_LEN], "big"), plaintext[CODE_LEN:].decode(errors="replace")


def check_fin(plaintext: bytes) -> None:
    """Raises FrameError unless the plaintext of FIN is empty."""
    check_empty(FrameType.FIN, plaintext)


def check_empty(kind: FrameType, plaintext: bytes) -> None:
    """Raises FrameError unless `plaintext` is empty, as that of FIN and BYE must be."""
    if plaintext:
        raise FrameError(f"a {kind.name} frame that carries bytes")
