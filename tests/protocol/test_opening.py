"""The contents of OPEN, ACCEPT, REJECT, RESET and FIN."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol import opening as contents
from stcp_proxy.protocol.opening import (
    Endpoint,
    Opening,
    check_fin,
    decode_reason,
    encode_keep,
    encode_reason,
    parse_attributes,
    read_accept,
)
from stcp_proxy.protocol.wire import MAX_ATTRIBUTES, MAX_TEXT

ADDRESSES = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address) | st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
ENDPOINTS = st.builds(Endpoint, ADDRESSES, st.integers(0, 65535))
SERVICES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
OPENINGS = st.builds(
    Opening, st.none() | SERVICES, st.none() | ENDPOINTS, st.none() | ENDPOINTS, st.none() | st.integers(1, 65535)
)


def attribute(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


V4 = b"\x04\xc0\x00\x02\x07\x9c\x40"


@given(OPENINGS)
def test_round_trip(opening: Opening) -> None:
    assert Opening.decode(opening.encode()) == opening


@given(OPENINGS, st.lists(st.tuples(st.integers(5, 255), st.binary(max_size=20)), max_size=4))
def test_unknown_attributes_are_ignored(opening: Opening, unknown: list[tuple[int, bytes]]) -> None:
    strange = b"".join(attribute(kind, value) for kind, value in unknown)
    assert Opening.decode(strange + opening.encode() + strange) == opening


@given(st.binary(max_size=80))
def test_junk_is_read_or_refused(junk: bytes) -> None:
    """One exception is allowed, and no other."""
    try:
        Opening.decode(junk)
        parse_attributes(junk)
    except FrameError:
        pass


def test_a_frame_has_a_limited_number_of_attributes() -> None:
    """A frame has room for 21,838 attributes, which took 7 ms of the listener's only thread."""
    assert Opening.decode(attribute(200, b"") * MAX_ATTRIBUTES) == Opening()
    for count in (MAX_ATTRIBUTES + 1, 21838):
        with pytest.raises(FrameError, match="more than 64 attributes"):
            Opening.decode(attribute(200, b"") * count)


def test_every_cut_is_refused() -> None:
    whole = attribute(1, b"service") + attribute(2, V4)
    boundaries = {0, len(attribute(1, b"service"))}
    for end in range(len(whole)):
        if end in boundaries:
            Opening.decode(whole[:end])
        else:
            with pytest.raises(FrameError, match="cut short"):
                Opening.decode(whole[:end])


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_known_attributes_come_once(kind: int) -> None:
    value = b"name" if kind == 1 else V4
    with pytest.raises(FrameError, match="twice"):
        Opening.decode(attribute(kind, value) * 2)


@pytest.mark.parametrize("length", [1, 255])
def test_service_names_within_bounds(length: int) -> None:
    assert Opening.decode(Opening(service="x" * length).encode()).service == "x" * length


@pytest.mark.parametrize("name", ["", "x" * 256, "ü" * 128])
def test_service_names_out_of_bounds(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        Opening(service=name).encode()
    with pytest.raises(FrameError, match="length"):
        Opening.decode(attribute(1, name.encode()))


def test_a_service_name_that_is_not_utf8() -> None:
    with pytest.raises(FrameError, match="UTF-8"):
        Opening.decode(attribute(1, b"\xc3"))


@pytest.mark.parametrize(
    "value", [b"", b"\x04", V4[:-1], V4 + b"\0", b"\x06" + V4[1:], b"\x05" + V4[1:], b"\x04" + bytes(18), b"\0" * 7]
)
def test_addresses_that_are_none(value: bytes) -> None:
    for kind in (2, 3):
        with pytest.raises(FrameError, match="address"):
            Opening.decode(attribute(kind, value))


def test_addresses_in_words() -> None:
    assert str(Endpoint(ipaddress.ip_address("192.0.2.7"), 40000)) == "192.0.2.7:40000"
    assert str(Endpoint(ipaddress.ip_address("2001:db8::1"), 443)) == "[2001:db8::1]:443"
    assert Endpoint(ipaddress.ip_address("192.0.2.7"), 40000).encode() == V4


@given(st.integers(0, 65535), st.text())
def test_reasons_keep_what_fits(code: int, text: str) -> None:
    """Any text at all, lone surrogates included: cut at a character, never longer than the format allows."""
    plaintext = encode_reason(code, text)
    assert len(plaintext) <= 2 + MAX_TEXT
    got_code, got_text = decode_reason(plaintext)
    assert got_code == code
    assert text.encode(errors="replace").decode().startswith(got_text)
    if len(text.encode(errors="replace")) <= MAX_TEXT:
        assert got_text == text.encode(errors="replace").decode()


@pytest.mark.parametrize("text", ["x" * 300, "ü" * 200, "€" * 100, "𝄞" * 80, "x" + "𝄞" * 80, "bad \udcff"])
def test_long_and_strange_texts(text: str) -> None:
    plaintext = encode_reason(12, text)
    assert len(plaintext) <= 258
    assert "�" not in decode_reason(plaintext)[1]


@pytest.mark.parametrize("size", [0, 1, 259, 65516])
def test_reasons_of_a_wrong_size(size: int) -> None:
    with pytest.raises(FrameError, match=str(size)):
        decode_reason(bytes(size))


@pytest.mark.parametrize("size", [2, 3, 258])
def test_reasons_of_a_right_size(size: int) -> None:
    assert decode_reason(b"\x00\x08" + b"x" * (size - 2)) == (8, "x" * (size - 2))


def test_a_reason_that_is_not_utf8_is_still_a_reason() -> None:
    assert decode_reason(b"\x00\x08\xffx") == (8, "�x")


def test_fin_is_empty() -> None:
    check_fin(b"")
    with pytest.raises(FrameError):
        check_fin(b"\0")


def test_only_a_short_accept_is_remembered() -> None:
    """A peer's unknown attributes must not fill the memory."""
    accept = encode_keep(31)
    assert read_accept(b"") is None
    assert [read_accept(accept) for _ in range(2)] == [31, 31]
    before = contents._read_short.cache_info().currsize
    assert read_accept(accept + b"\xee" + (4000).to_bytes(2, "big") + bytes(4000)) == 31
    assert contents._read_short.cache_info().currsize == before
    for _ in range(2):
        with pytest.raises(FrameError, match="cut short"):
            read_accept(accept[:-1])
