"""Plaintexts of frames, plaintexts that are refused, and orders of frame types."""

from __future__ import annotations

import ipaddress
from typing import Any

from .primitives import TYPES


def attribute(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def address(ip: str, port: int) -> bytes:
    parsed = ipaddress.ip_address(ip)
    return bytes([parsed.version]) + parsed.packed + port.to_bytes(2, "big")


def reason(code: int, text: str) -> bytes:
    return code.to_bytes(2, "big") + text.encode()


def contents() -> list[dict[str, Any]]:
    v4, v6 = address("192.0.2.7", 40_000), address("2001:db8::1", 443)
    return [
        {"type": TYPES["OPEN"], "content": "", "attributes": {}},
        {"type": TYPES["OPEN"], "content": attribute(1, b"db").hex(), "attributes": {"service": "db"}},
        {
            "type": TYPES["OPEN"],
            "content": (attribute(1, "größe".encode()) + attribute(2, v4) + attribute(3, v6)).hex(),
            "attributes": {"service": "größe", "client": "192.0.2.7:40000", "original": "[2001:db8::1]:443"},
        },
        {
            "type": TYPES["OPEN"],
            "content": (attribute(3, v4) + attribute(200, b"of a later version") + attribute(200, b"") + attribute(2, v6)).hex(),
            "attributes": {"client": "[2001:db8::1]:443", "original": "192.0.2.7:40000"},
        },
        {"type": TYPES["OPEN"], "content": attribute(1, b"x" * 255).hex(), "attributes": {"service": "x" * 255}},
        {"type": TYPES["ACCEPT"], "content": "", "attributes": {}},
        {"type": TYPES["ACCEPT"], "content": attribute(77, b"?").hex(), "attributes": {}},
        {"type": TYPES["REJECT"], "content": reason(3, "connection refused").hex(), "code": 3, "text": "connection refused"},
        {"type": TYPES["RESET"], "content": reason(8, "").hex(), "code": 8, "text": ""},
        {"type": TYPES["RESET"], "content": reason(7, "größer").hex(), "code": 7, "text": "größer"},
        {"type": TYPES["RESET"], "content": reason(65535, "x" * 256).hex(), "code": 65535, "text": "x" * 256},
        {"type": TYPES["FIN"], "content": ""},
        {"type": TYPES["BYE"], "content": ""},
        {"type": TYPES["OPEN"], "content": keep(1).hex(), "attributes": {"keep": "1"}},
        {
            "type": TYPES["OPEN"],
            "content": (attribute(1, b"db") + keep(65535)).hex(),
            "attributes": {"service": "db", "keep": "65535"},
        },
        {"type": TYPES["ACCEPT"], "content": keep(30).hex(), "attributes": {"keep": "30"}},
    ]


def refused_contents() -> list[dict[str, Any]]:
    v4 = address("192.0.2.7", 40_000)
    cases = [
        ("OPEN", "half an attribute header", b"\x01\x00"),
        ("OPEN", "an attribute longer than the frame", b"\x01\x00\x05abcd"),
        ("OPEN", "a service name of 256 bytes", attribute(1, b"x" * 256)),
        ("OPEN", "a service name that is not UTF-8", attribute(1, b"\xff\xfe")),
        ("OPEN", "an empty address", attribute(2, b"")),
        ("OPEN", "an address of family 5", attribute(2, b"\x05" + v4[1:])),
        ("OPEN", "an address of family 6 and 4 bytes", attribute(2, b"\x06" + v4[1:])),
        ("OPEN", "an address one byte too long", attribute(3, v4 + b"\0")),
        ("OPEN", "the same attribute twice", attribute(2, v4) * 2),
        ("REJECT", "no code", b""),
        ("REJECT", "half a code", b"\x00"),
        ("RESET", "no code", b""),
        ("RESET", "half a code", b"\x00"),
        ("RESET", "257 bytes of text", reason(8, "x" * 257)),
        ("FIN", "one byte", b"\x00"),
        ("BYE", "one byte", b"\x00"),
        ("OPEN", "keep of one byte", attribute(4, b"\x01")),
        ("OPEN", "keep of three bytes", attribute(4, b"\x00\x00\x01")),
        ("OPEN", "keep of no seconds", attribute(4, b"\x00\x00")),
        ("OPEN", "keep twice", keep(1) * 2),
        ("ACCEPT", "keep of no seconds", attribute(4, b"\x00\x00")),
    ]
    return [{"type": TYPES[kind], "why": why, "content": content.hex()} for kind, why, content in cases]


def sequences() -> list[dict[str, Any]]:
    cases: list[tuple[str, str, int | None]] = [
        ("initiator", "OPEN", None),
        ("initiator", "OPEN DATA DATA FIN", None),
        ("initiator", "OPEN RESET", None),
        ("initiator", "OPEN FIN RESET", None),
        ("responder", "ACCEPT DATA FIN RESET", None),
        ("responder", "REJECT", None),
        ("initiator", "DATA", 0),
        ("initiator", "FIN", 0),
        ("initiator", "RESET", 0),
        ("initiator", "ACCEPT", 0),
        ("initiator", "REJECT", 0),
        ("initiator", "OPEN OPEN", 1),
        ("initiator", "OPEN ACCEPT", 1),
        ("initiator", "OPEN REJECT", 1),
        ("initiator", "OPEN FIN FIN", 2),
        ("initiator", "OPEN FIN DATA", 2),
        ("initiator", "OPEN RESET RESET", 2),
        ("initiator", "OPEN RESET DATA", 2),
        ("responder", "OPEN", 0),
        ("responder", "DATA", 0),
        ("responder", "FIN", 0),
        ("responder", "RESET", 0),
        ("responder", "ACCEPT ACCEPT", 1),
        ("responder", "ACCEPT REJECT", 1),
        ("responder", "ACCEPT OPEN", 1),
        ("responder", "REJECT ACCEPT", 1),
        ("responder", "REJECT RESET", 1),
        ("responder", "REJECT DATA", 1),
        ("responder", "ACCEPT DATA FIN DATA", 3),
    ]
    return [{"side": side, "types": kinds.split(), "refused_at": at} for side, kinds, at in cases]


def keep(seconds: int) -> bytes:
    return attribute(4, seconds.to_bytes(2, "big"))
