"""Netlink messages as bytes: any bytes are parsed or refused, and what is packed is read back."""

from __future__ import annotations

import contextlib
import errno
import struct
from typing import Any, cast

import pytest
from harness.netlink import attribute
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.net import netlink_messages as nl
from stcp_proxy.net.netlink_messages import MalformedMessage

KINDS = st.integers(0, 0x3FFF)


@given(st.dictionaries(KINDS, st.binary(max_size=300), max_size=8))
def test_what_is_packed_is_read_back(found: dict[int, bytes]) -> None:
    packed = bytes(nl.pack(found))
    assert packed == b"".join(attribute(kind, value) for kind, value in found.items())
    assert nl.parse(packed) == found


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for parse in (nl.parse, lambda data: list(nl.messages(data))):
        with contextlib.suppress(MalformedMessage):
            parse(data)


@given(st.dictionaries(KINDS, st.binary(max_size=30), min_size=1, max_size=5), st.data())
def test_a_cut_message_is_refused_or_shorter(found: dict[int, bytes], data: st.DataObject) -> None:
    packed = bytes(nl.pack(found))
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    try:
        read = nl.parse(cut)
    except MalformedMessage:
        return
    assert read.items() <= found.items()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08", "cut short"),
        (struct.pack("=HH", 3, 1), "3 bytes"),
        (struct.pack("=HH", 9, 1) + bytes(4), "9 bytes"),
        (struct.pack("=HH", 0, 1), "0 bytes"),
        (attribute(1, b"a") + attribute(1, b"b"), "twice"),
        (attribute(1, b"a") + attribute(1 | 0x8000, b"b"), "twice"),
    ],
)
def test_malformed_attributes(data: bytes, why: str) -> None:
    with pytest.raises(MalformedMessage, match=why):
        nl.parse(data)


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_a_message_with_a_wrong_length(length: int) -> None:
    with pytest.raises(MalformedMessage, match="says it has"):
        list(nl.messages(struct.pack("=IHHII", length, 1, 0, 1, 0) + bytes(4)))


def test_several_messages_in_a_datagram() -> None:
    datagram = nl.message(5, 0, 1, b"abc") + bytes(1) + nl.message(6, 0, 2)
    assert [(each.kind, each.sequence, each.body) for each in nl.messages(bytes(datagram))] == [
        (5, 1, b"abc"),
        (6, 2, b""),
    ]


@pytest.mark.parametrize(("body", "error"), [(struct.pack("=i", -13), 13), (bytes(4), 0), (b"ab", None)])
def test_the_error_of_a_message(body: bytes, error: int | None) -> None:
    assert nl.Message(nl.NLMSG_ERROR, 1, body).error == error
    assert nl.Message(nl.NLMSG_DONE, 1, body).error is None


class Kernel:
    """A socket on which the kernel has answers waiting."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)
        self.asked = b""

    def send(self, data: bytes) -> None:
        self.asked = bytes(data)

    def recv(self, _size: int) -> bytes:
        return self.datagrams.pop(0)


def dump(*datagrams: bytes) -> list[bytes]:
    kernel = Kernel(*datagrams)
    found = list(nl.dump(cast(Any, kernel), 18, b"ask"))
    assert kernel.asked == struct.pack("=IHHII", 19, 18, 0x301, 1, 0) + b"ask"
    return found


def test_a_list_ends_with_done() -> None:
    one, two, done = (
        bytes(nl.message(kind, 0, 1, body)) for kind, body in ((16, b"one_"), (16, b"two_"), (nl.NLMSG_DONE, bytes(4)))
    )
    assert dump(one + two, two + done + one) == [b"one_", b"two_", b"two_"]


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        (bytes(nl.message(nl.NLMSG_ERROR, 0, 1, struct.pack("=i", -errno.EPERM))), errno.EPERM),
        (bytes(nl.message(nl.NLMSG_ERROR, 0, 1, b"")), errno.EPROTO),
        (bytes(nl.message(nl.NLMSG_ERROR, 0, 1, bytes(4))), errno.EPROTO),
        (b"short", errno.EPROTO),
        (struct.pack("=IHHII", 15, 16, 0, 1, 0), errno.EPROTO),
    ],
)
def test_a_list_that_the_kernel_refuses_or_garbles(datagram: bytes, code: int) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011, the errno is what is checked
        dump(datagram)
    assert caught.value.errno == code
