"""The PROXY header: both ways, against an implementation from elsewhere, and against all that is nearly one."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6, ProxyResultLocal, ProxyResultUnknown
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from stcp_proxy.errors import ProxyHeaderRefused
from stcp_proxy.net import proxy_header
from stcp_proxy.net.proxy_header import (
    MAX_HEADER,
    MAX_LINE,
    TLV_CRC32C,
    ProxyHeader,
    Version,
    crc32c,
    encode_header,
    parse_header,
)
from stcp_proxy.protocol.opening import Endpoint

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 52144 5432\r\n"

ports = st.integers(0, 65535)
tlvs = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != TLV_CRC32C), st.binary(max_size=40)), max_size=5)


@st.composite
def headers(draw: Any, with_tlvs: bool = True) -> ProxyHeader:
    ips = st.ip_addresses(v=draw(st.sampled_from([4, 6])))
    found = tuple(draw(tlvs)) if with_tlvs else ()
    if draw(st.integers(0, 9)) == 0:
        return ProxyHeader()
    return ProxyHeader(Endpoint(draw(ips), draw(ports)), Endpoint(draw(ips), draw(ports)), found)


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + (len(body) if length is None else length).to_bytes(2, "big") + body


def fed(data: bytes) -> tuple[int, ProxyHeader] | None:
    """The result for `data` that comes in single bytes, each answer before the last being None."""
    for end in range(len(data)):
        early = parse_header(data[:end])
        if early is not None:
            return early
    return parse_header(data)


# -- both ways -------------------------------------------------------------------------------------------------------------


@given(headers(with_tlvs=False), st.binary(max_size=20))
def test_v1_round_trip(header: ProxyHeader, behind: bytes) -> None:
    data = encode_header(header, "v1")
    assert len(data) <= MAX_LINE
    assert parse_header(data + behind) == (len(data), header)
    assert fed(data) == (len(data), header)


@given(headers(), st.binary(max_size=20))
def test_v2_round_trip(header: ProxyHeader, behind: bytes) -> None:
    data = encode_header(header, "v2")
    assert parse_header(data + behind) == (len(data), header)
    assert fed(data) == (len(data), header)


@given(headers(with_tlvs=False))
def test_what_is_written_is_read_by_another_implementation(header: ProxyHeader) -> None:
    for implementation, version in ((ProxyProtocolV1(), "v1"), (ProxyProtocolV2(), "v2")):
        result: Any = implementation.unpack(encode_header(header, version))  # type: ignore[arg-type]
        if header.source is None or header.destination is None:
            assert isinstance(result, ProxyResultUnknown if version == "v1" else ProxyResultLocal)
        else:
            assert result.source == (header.source.ip, header.source.port)
            assert result.dest == (header.destination.ip, header.destination.port)


@given(headers(with_tlvs=False))
def test_what_another_implementation_writes_is_read(header: ProxyHeader) -> None:
    if header.source is None or header.destination is None:
        return
    kind: Any = ProxyResultIPv4 if header.source.ip.version == 4 else ProxyResultIPv6
    ends = (header.source.ip, header.source.port), (header.destination.ip, header.destination.port)
    result = kind(*ends, protocol=socket.SOCK_STREAM)
    for data in (ProxyProtocolV1().pack(result), ProxyProtocolV2().pack(result)):
        found = parse_header(data)
        assert found is not None
        assert (found[0], found[1].source, found[1].destination) == (len(data), header.source, header.destination)


# -- what is not one -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60))
def test_any_bytes_are_a_header_or_refused(data: bytes) -> None:
    for prefix in (b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"):
        try:
            found = parse_header(prefix + data)
        except ProxyHeaderRefused:
            continue
        assert found is None or found[0] <= len(prefix + data)


@given(headers(), st.data())
def test_a_wrong_byte_is_no_other_error(header: ProxyHeader, data: Any) -> None:
    for version in ("v1", "v2"):
        good = bytearray(encode_header(header, version))  # type: ignore[arg-type]
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
        try:
            parse_header(bytes(good))
        except ProxyHeaderRefused:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"PROXX",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1_0 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 :::1 ::1 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rGET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xb2\r\n",
        b"PROXY UNKNOWN" + b" " * MAX_LINE,
        b"PROXY UNKNOWN" + b" " * (MAX_LINE - 14) + b"\r\n",
        SIGNATURE + b"\x11",
        SIGNATURE + b"\x22",
        SIGNATURE + b"\x31",
        v2(bytes(12), family=0x12),
        v2(bytes(36), family=0x22),
        v2(bytes(12), family=0x10),
        v2(bytes(12), family=0x41),
        v2(bytes(11)),
        v2(bytes(35), family=0x21),
        v2(bytes(215), family=0x31),
        v2(bytes(12) + b"\x05"),
        v2(bytes(12) + b"\x05\0"),
        v2(bytes(12) + b"\x05\0\x02x"),
        v2(bytes(12) + b"\x05\0\0\x05"),
        v2(b"", length=MAX_HEADER - 15),
        v2(b"", length=65535),
        v2(b"", length=65535, command=0x20),
        v2(bytes(12) + b"\x03\0\x04abcd"),
        v2(bytes(12) + b"\x03\0\x03abc"),
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderRefused) as caught:
        parse_header(data)
    assert caught.value.remedy
    with pytest.raises(ProxyHeaderRefused):
        fed(data)


def test_a_line_is_refused_at_its_last_byte_at_the_latest() -> None:
    assert parse_header(b"PROXY UNKNOWN" + b" " * (MAX_LINE - 14)) is None
    with pytest.raises(ProxyHeaderRefused):
        parse_header(b"PROXY UNKNOWN" + b" " * (MAX_LINE - 13))


def test_the_longest_headers() -> None:
    line = b"PROXY UNKNOWN ffff:" + b"f" * (MAX_LINE - 21) + b"\r\n"
    assert len(line) == MAX_LINE
    assert parse_header(line) == (MAX_LINE, ProxyHeader())
    wide = ProxyHeader(*[Endpoint(ipaddress.IPv4Address(1), 1)] * 2, ((0xE0, bytes(MAX_HEADER - 31)),))
    assert parse_header(encode_header(wide, "v2")) == (MAX_HEADER, wide)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ::1 ::1 1 2\r\n",
        v2(b"", command=0x20, family=0),
        v2(b"whatever there is", command=0x20, family=0x11),
        v2(b"", family=0),
        v2(bytes(216), family=0x31),
    ],
)
def test_nothing_about_the_client(data: bytes) -> None:
    assert parse_header(data + b"more") == (len(data), ProxyHeader())


def test_the_known_line() -> None:
    header = ProxyHeader(
        Endpoint(ipaddress.IPv4Address("192.0.2.7"), 52144), Endpoint(ipaddress.IPv4Address("198.51.100.1"), 5432)
    )
    assert encode_header(header, "v1") == LINE
    assert parse_header(LINE) == (len(LINE), header)


def test_checksum() -> None:
    """The check value of this polynomial, and a header that carries its own sum."""
    assert crc32c(b"123456789") == 0xE3069283
    body = bytes(12) + b"\x03\0\x04"
    good = v2(body + crc32c(v2(body + bytes(4))).to_bytes(4, "big"))
    found = parse_header(good)
    assert found is not None
    assert found[0] == len(good)


def test_a_header_is_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many checksums it has: five hundred fit, and each right one would cost a pass over four thousand bytes."""
    sums: list[int] = []

    def same(data: bytes) -> int:
        sums.append(len(data))
        return 0

    monkeypatch.setattr(proxy_header, "crc32c", same)
    with pytest.raises(ProxyHeaderRefused, match="more than one checksum"):
        parse_header(v2(bytes(12) + b"\x03\0\x04\0\0\0\0" * 500))
    assert len(sums) == 1


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_cannot_be_written(version: Version) -> None:
    four, six = Endpoint(ipaddress.IPv4Address(1), 1), Endpoint(ipaddress.IPv6Address(1), 1)
    for header in (ProxyHeader(four, six), ProxyHeader(four, None), ProxyHeader(None, six)):
        with pytest.raises(ValueError, match="a header"):
            encode_header(header, version)


def test_tlvs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode_header(ProxyHeader(tlvs=((0xE0, bytes(MAX_HEADER)),)), "v2")
