"""The PROXY protocol's header: what a proxy says in front of a connection's bytes about who is connected with whom.

    version 1   one line of text     PROXY TCP4 192.0.2.7 198.51.100.1 52144 5432\\r\\n
    version 2   binary               signature (12) ‖ 2, command ‖ family, transport ‖ length (u16) ‖ addresses ‖ TLVs

Bytes in, a header out, and the other way round; no I/O. Reading is strict: what is not exactly a header is refused at its first
wrong byte, and no more than `MAX_HEADER` bytes are ever asked for. The libraries of this field for Python bring servers of their
own, read a version 2 header only when nothing stands behind it, and take ports like "+80"; so it is written out here.

What a header says is its sender's word.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from stcp_proxy.errors import ProxyHeaderRefused
from stcp_proxy.protocol.opening import Endpoint

Version = Literal["v1", "v2"]

MAX_HEADER: Final = 4096
"""Bytes of a version 2 header that are read, TLVs included. With addresses alone it has 52 at most for TCP, and its authors meant
the whole to fit into a packet of 536."""
MAX_LINE: Final = 107
"""Bytes of a version 1 header, the end of its line included."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = len(_SIGNATURE) + 4
_WORD: Final = b"PROXY "
_LOCAL, _PROXY = 0x20, 0x21
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_FAMILIES: Final = {"TCP4": 4, "TCP6": 6}
_UNSPEC, _STREAM_4, _STREAM_6, _STREAM_UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESSES: Final = {_UNSPEC: 0, _STREAM_4: 12, _STREAM_6: 36, _STREAM_UNIX: 216}
"""Length of both addresses, by family and transport."""

TLV_CRC32C: Final = 0x03
TLV_UNIQUE_ID: Final = 0x05
TLV_PEER: Final = 0xE1
"""Of the range for an application's own: the name of the peer whose key was proved, from the listening side's file (UTF-8)."""
TLV_SERVICE: Final = 0xE2
"""The service that the peer asked for (UTF-8)."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says.

    Attributes:
        source: the client; None where the sender does not know, or speaks for itself.
        destination: where the client connected to; of the same family; None together with `source`.
        tlvs: (type, value) of everything else, version 2 only.
    """

    source: Endpoint | None = None
    destination: Endpoint | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()


# -- writing ---------------------------------------------------------------------------------------------------------------


def encode_header(header: ProxyHeader, version: Version) -> bytes:
    """The bytes of a header. Without addresses it says UNKNOWN (v1) or LOCAL (v2), and the receiver takes what it sees itself.

    Raises:
        ValueError: addresses of two families, only one address, or TLVs that do not fit.
    """
    if (header.source is None) != (header.destination is None):
        raise ValueError("a header has two addresses or none")
    return _encode_v1(header) if version == "v1" else _encode_v2(header)


def _encode_v1(header: ProxyHeader) -> bytes:
    source, destination = header.source, header.destination
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    _require_family(source, destination)
    return f"PROXY TCP{source.ip.version} {source.ip} {destination.ip} {source.port} {destination.port}\r\n".encode()


def _encode_v2(header: ProxyHeader) -> bytes:
    source, destination = header.source, header.destination
    command, family, addresses = _LOCAL, _UNSPEC, b""
    if source is not None and destination is not None:
        _require_family(source, destination)
        command, family = _PROXY, _STREAM_4 if source.ip.version == 4 else _STREAM_6
        addresses = source.ip.packed + destination.ip.packed
        addresses += source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    body = addresses + b"".join(bytes([kind]) + len(value).to_bytes(2, "big") + value for kind, value in header.tlvs)
    if _FIXED + len(body) > MAX_HEADER:
        raise ValueError(f"a header has at most {MAX_HEADER} bytes")
    return _SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def _require_family(source: Endpoint, destination: Endpoint) -> None:
    if source.ip.version != destination.ip.version:
        raise ValueError("both addresses of a header are of one family")


# -- reading ---------------------------------------------------------------------------------------------------------------


def parse_header(data: bytes) -> tuple[int, ProxyHeader] | None:
    """The header, of either version, with which `data` begins.

    Returns:
        How many bytes it has, and what it says; None while it is incomplete.

    Raises:
        ProxyHeaderRefused: `data` does not begin with a header, or with one that is malformed or too long.
    """
    if data[: len(_WORD)] == _WORD[: len(data)]:
        return _parse_v1(data)
    if data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _parse_v2(data)
    raise ProxyHeaderRefused("the first bytes are not those of a PROXY header")


def _parse_v1(data: bytes) -> tuple[int, ProxyHeader] | None:
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise _malformed(f"its line does not end within {MAX_LINE} bytes")
        return None
    size = end + 2
    try:
        words = data[len(_WORD) : end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise _malformed("its line is not ASCII") from None
    if words[0] == "UNKNOWN":
        return size, ProxyHeader()
    version = _FAMILIES.get(words[0])
    if version is None or len(words) != 5:
        raise _malformed("its line is not 'PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT'")
    source, destination = (_endpoint(words[1 + at], words[3 + at], version) for at in (0, 1))
    return size, ProxyHeader(source, destination)


def _endpoint(host: str, port: str, version: int) -> Endpoint:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise _malformed("what should be an address is none") from None
    if ip.version != version or "%" in host:
        raise _malformed(f"what should be an IPv{version} address is none")
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise _malformed("what should be a port is none")
    return Endpoint(ip, int(port))


def _parse_v2(data: bytes) -> tuple[int, ProxyHeader] | None:
    command = data[12] if len(data) > 12 else _LOCAL
    if command not in (_LOCAL, _PROXY):
        raise _malformed("its version is not 2, or its command neither LOCAL nor PROXY")
    if len(data) < _FIXED:
        return None
    family = data[13]
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if size > MAX_HEADER:
        raise _malformed(f"it announces {size} bytes, and {MAX_HEADER} are the most")
    if len(data) < size:
        return None
    header = data[:size]
    if command == _LOCAL:
        # Whatever its addresses are, they do not count; and what follows them cannot be told from them.
        return size, ProxyHeader()
    length = _ADDRESSES.get(family)
    if length is None:
        raise _malformed("it speaks of something else than a TCP connection")
    if size < _FIXED + length:
        raise _malformed("it ends inside its addresses")
    tlvs = () if family == _UNSPEC else _parse_tlvs(header, _FIXED + length)
    if family not in (_STREAM_4, _STREAM_6):
        return size, ProxyHeader(tlvs=tlvs)
    half = (length - 4) // 2
    addresses, ports = header[_FIXED : _FIXED + 2 * half], header[_FIXED + 2 * half : _FIXED + length]
    source = Endpoint(ipaddress.ip_address(addresses[:half]), int.from_bytes(ports[:2], "big"))
    destination = Endpoint(ipaddress.ip_address(addresses[half:]), int.from_bytes(ports[2:], "big"))
    return size, ProxyHeader(source, destination, tlvs)


def _parse_tlvs(header: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    found: list[tuple[int, bytes]] = []
    while at < len(header):
        start = at + 3
        end = start + int.from_bytes(header[at + 1 : start], "big")
        if start > len(header) or end > len(header):
            raise _malformed("it ends inside a TLV")
        kind, value = header[at], header[start:end]
        if kind == TLV_CRC32C:
            if any(other == TLV_CRC32C for other, _ in found):  # each would cost a pass over the whole header
                raise _malformed("it has more than one checksum")
            _check_sum(header, start, value)
        found.append((kind, value))
        at = end
    return tuple(found)


def _check_sum(header: bytes, at: int, value: bytes) -> None:
    if len(value) != 4:
        raise _malformed("its checksum has a wrong length")
    zeroed = header[:at] + bytes(4) + header[at + 4 :]
    if crc32c(zeroed) != int.from_bytes(value, "big"):
        raise _malformed("its checksum is wrong")


def _malformed(why: str) -> ProxyHeaderRefused:
    return ProxyHeaderRefused(f"the PROXY header is malformed: {why}")


# -- checksum --------------------------------------------------------------------------------------------------------------


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC: Final[Sequence[int]] = tuple(_crc_row(value) for value in range(256))


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B, which is not the one of zlib."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
