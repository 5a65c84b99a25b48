"""Other protocols are named by their first bytes, and STCP's own bytes are taken for none of them."""

from __future__ import annotations

import pytest

from stcp_proxy.protocol.greeting import PROXY_HEADER, protocol_of

FIRST_BYTES = {
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x15\x03\x03\x00\x02\x02\x46"],
    "HTTP": [b"GET / HTTP/1.1\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "SSH": [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"],
    "Redis": [b"*1\r\n$4\r\nPING\r\n", b"-ERR unknown command 'STCP'\r\n", b"-DENIED Redis is running in protected mode"],
    "MySQL": [b"\x4a\x00\x00\x00\x0a8.0.36\x00", b"\x45\x00\x00\x00\xffj\x04Host '10.0.0.9' is not allowed"],
    "PostgreSQL": [
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x00\x00\x00\x29\x00\x03\x00\x00user\x00",
        b"E\x00\x00\x00\x8aSFATAL\x00",
    ],
    "SMTP or FTP": [b"220 mail.example.org ESMTP\r\n"],
    PROXY_HEADER: [b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"],
    "plain text": [b"hello there"],
    "": [b"", b"S", b"\x00\x20" + bytes(range(128, 160)), b"STCP\x01\x01\x05\x10", bytes(40)],
}


@pytest.mark.parametrize(("name", "head"), [(name, head) for name, heads in FIRST_BYTES.items() for head in heads])
def test_first_bytes(name: str, head: bytes) -> None:
    assert protocol_of(head) == name


def test_a_part_of_the_first_bytes_is_no_failure() -> None:
    for heads in FIRST_BYTES.values():
        for head in heads:
            for length in range(len(head)):
                assert isinstance(protocol_of(head[:length]), str)
