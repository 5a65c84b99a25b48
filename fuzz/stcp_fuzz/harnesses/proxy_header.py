"""PROXY headers, versions 1 and 2, read and written.

Promises: only ProxyHeaderRefused refuses; the beginning of an accepted header is incomplete, never refused and never another
header; no more than the limit is asked for; what is read can be written and read again.
"""

from __future__ import annotations

import ipaddress

from stcp_fuzz.choices import Choices
from stcp_proxy.errors import ProxyHeaderRefused
from stcp_proxy.net.proxy_header import MAX_HEADER, ProxyHeader, encode_header, parse_header
from stcp_proxy.protocol.opening import Endpoint


def one(data: bytes) -> None:
    """Run one input."""
    if data[:1] == b"\xff":
        _write(Choices(data[1:]))
    else:
        _read(data)


def _read(data: bytes) -> None:
    try:
        found = parse_header(data)
    except ProxyHeaderRefused:
        return
    if found is None:
        assert len(data) < MAX_HEADER
        return
    size, header = found
    assert 0 < size <= MAX_HEADER
    assert parse_header(data[:size]) == found
    for cut in {0, 1, 5, 6, 11, 12, 15, 16, size // 2, size - 1}:
        if cut < size:
            assert parse_header(data[:cut]) is None, cut
    again = encode_header(ProxyHeader(header.source, header.destination), "v1")
    assert again.count(b"\r\n") == 1
    parsed = parse_header(again)
    assert parsed is not None
    assert (parsed[1].source, parsed[1].destination) == (header.source, header.destination)


def _endpoint(choices: Choices, *, six: bool) -> Endpoint:
    packed = choices.take(16 if six else 4).ljust(16 if six else 4, b"\0")
    return Endpoint(ipaddress.ip_address(packed), choices.number())


def _write(choices: Choices) -> None:
    six = choices.flag()
    ends = (_endpoint(choices, six=six), _endpoint(choices, six=six)) if choices.flag() else (None, None)
    tlvs = tuple((0xE0 + choices.byte() % 16, choices.take(choices.byte())) for _ in range(choices.byte() % 4))
    header = ProxyHeader(*ends, tlvs=tlvs if ends[0] is not None else ())
    try:
        written = encode_header(header, "v2")
    except ValueError:
        return
    assert parse_header(written + choices.rest()) == (len(written), header)
