"""Names of other protocols by their first bytes, for messages: "the first bytes look like TLS".

A guess serves the reader of a log and nothing else: no decision depends on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PROXY_HEADER: Final = "a PROXY header"
_HTTP_METHODS: Final = (b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"PRI * ")
_REDIS_REPLIES: Final = (b"-ERR", b"-NOAUTH", b"-DENIED", b"-LOADING", b"-MISCONF", b"+OK", b"+PONG")
_PROXY_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_POSTGRES_REQUESTS: Final = (b"\x00\x03\x00\x00", b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")
"""Protocol version 3.0, SSLRequest and GSSENCRequest, behind the length."""


def _is_tls(head: bytes) -> bool:
    """A TLS record of a handshake, or an alert."""
    return len(head) >= 3 and head[0] in (0x15, 0x16) and head[1] == 3 and head[2] <= 4


def _is_http(head: bytes) -> bool:
    return head.startswith((b"HTTP/", *_HTTP_METHODS))


def _is_redis(head: bytes) -> bool:
    """An array of strings, as clients send, or a reply."""
    return (head[:1] == b"*" and head[1:2].isdigit()) or head.startswith(_REDIS_REPLIES)


def _is_mysql(head: bytes) -> bool:
    """The first packet of a server: the greeting of protocol 10, or an error (host blocked, too many connections)."""
    return len(head) >= 5 and head[3] == 0 and head[2] == 0 and head[4] in (0x0A, 0xFF)


def _is_postgresql(head: bytes) -> bool:
    """A client's first message, or a server's error."""
    request = len(head) >= 8 and head[:2] == b"\0\0" and head[4:8] in _POSTGRES_REQUESTS
    error = len(head) >= 6 and head[:2] == b"E\0" and head[5:6] in (b"S", b"F")
    return request or error


_KNOWN: Final[tuple[tuple[str, Callable[[bytes], bool]], ...]] = (
    ("TLS", _is_tls),
    ("HTTP", _is_http),
    ("SSH", lambda head: head.startswith(b"SSH-")),
    ("Redis", _is_redis),
    ("PostgreSQL", _is_postgresql),
    ("MySQL", _is_mysql),
    ("SMTP or FTP", lambda head: head.startswith((b"220 ", b"220-", b"421 ", b"554 "))),
    (PROXY_HEADER, lambda head: head.startswith((b"PROXY ", _PROXY_V2))),
)


def protocol_of(head: bytes) -> str:
    """The name of the protocol that begins like this, or text where nothing is known of it; empty for bytes without a sign.

    Args:
        head: the first bytes of a connection in one direction, as many as there are.
    """
    for name, matches in _KNOWN:
        if matches(head):
            return name
    line = head[:16]
    return "plain text" if len(line) >= 4 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in line) else ""
