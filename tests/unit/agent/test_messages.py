"""What the module and its agent say to each other: any bytes are read or refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.agent import messages
from stcp_proxy.agent.messages import Opened
from stcp_proxy.agent.netlink_abi import MAX_PEER, MAX_WIRE_BYTES, SocketRole
from stcp_proxy.net.netlink_messages import MalformedMessage, parse, parse_prefix
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.relay.engine import DirectionKey

from .fake_kernel import FD, ID, IDENTITY, ROLE, SERVICE, TIMEOUT, UID, describe, split


@given(st.binary(max_size=120), st.integers(0, 60))
def test_any_reply_to_accept_is_read_or_refused(noise: bytes, at: int) -> None:
    body = describe(7, identity="db", service="orders")
    changed = body[:at] + noise + body[at + len(noise) :]
    try:
        pending = messages.read_pending(parse(changed))
    except MalformedMessage:
        return
    assert pending.fd >= 0
    assert pending.role in SocketRole


def test_a_pending_handshake() -> None:
    found = messages.read_pending(parse(describe(9, id=2**63, role=1, timeout=1_500, uid=33, identity="web")))
    assert (found.id, found.fd, found.role, found.timeout, found.uid) == (2**63, 9, SocketRole.RESPONDER, 1.5, 33)
    assert (found.identity, found.service) == ("web", None)


@pytest.mark.parametrize("missing", [ID, FD, ROLE, TIMEOUT, UID])
def test_a_pending_handshake_without_one_of_its_parts(missing: int) -> None:
    found = split(describe(9))
    del found[missing]
    with pytest.raises(MalformedMessage):
        messages.read_pending(found)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FD, struct.pack("=i", -1)),
        (FD, bytes(8)),
        (ROLE, struct.pack("=I", 2)),
        (ID, bytes(4)),
    ],
)
def test_a_pending_handshake_with_a_wrong_part(kind: int, value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        messages.read_pending(split(describe(9)) | {kind: value})


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (IDENTITY, b"\0", "STCP_IDENTITY of the socket is b''"),
        (IDENTITY, b"", "STCP_IDENTITY of the socket is b''"),
        (IDENTITY, b"a\0b\0", r"STCP_IDENTITY of the socket is b'a\x00b'"),
        (IDENTITY, b"- " * 33, "STCP_IDENTITY of the socket is b'- - - "),
        (IDENTITY, b"x" * 65, "STCP_IDENTITY of the socket is (not shown, it may be a key)"),
        (SERVICE, b"\xff\xfe", r"STCP_SERVICE of the socket is b'\xff\xfe'"),
        (SERVICE, b"\x1b[2J\n\xff", r"STCP_SERVICE of the socket is b'\x1b[2J\n\xff'"),
    ],
)
def test_a_name_that_is_no_name_is_a_fault_of_one_handshake(kind: int, value: bytes, shown: str) -> None:
    pending = messages.read_pending(split(describe(9, id=3)) | {kind: value})
    assert (pending.id, pending.fd, pending.identity, pending.service) == (3, 9, None, None)
    assert pending.bad_name.startswith(shown)


@given(st.binary(max_size=80))
def test_any_name_is_read_or_refused(name: bytes) -> None:
    pending = messages.read_pending(split(describe(9)) | {IDENTITY: name})
    assert (pending.identity is None) == bool(pending.bad_name)
    assert pending.bad_name.isascii()


def test_what_can_be_read_of_a_malformed_reply() -> None:
    body = describe(9, id=3)
    found = parse_prefix(body + b"\1")
    assert (messages.number_of(found), messages.descriptor_of(found)) == (3, 9)
    assert messages.number_of(parse_prefix(body + describe(7, id=4))) is None  # which of the two is meant?
    assert messages.number_of({}) is messages.descriptor_of({}) is None


def test_a_name_as_long_as_it_may_be() -> None:
    assert messages.read_pending(split(describe(9)) | {IDENTITY: b"x" * 64 + b"\0"}).identity == "x" * 64


def opened(**changes: object) -> Opened:
    send, receive = DirectionKey(Secret(b"\1" * 32), 1), DirectionKey(Secret(b"\2" * 32), 2)
    parts = {"send": send, "receive": receive, "wire_bytes": b"", "peer": "db", "channel_id": b"\3" * 32} | changes
    return Opened(**parts)  # type: ignore[arg-type]


def test_done() -> None:
    found = split(bytes(messages.succeeded(5, opened(wire_bytes=b"frame"))))
    assert found == {
        1: struct.pack("=Q", 5), 8: bytes(4), 9: b"\1" * 32, 10: struct.pack("=Q", 1), 11: b"\2" * 32,
        12: struct.pack("=Q", 2), 13: b"frame", 14: b"db\0", 15: b"\3" * 32,
    }  # fmt: skip
    assert split(bytes(messages.failed(6, 126))) == {1: struct.pack("=Q", 6), 8: struct.pack("=i", -126)}


def test_done_without_a_name_and_with_most_bytes() -> None:
    found = split(bytes(messages.succeeded(5, opened(peer="", wire_bytes=b"x" * MAX_WIRE_BYTES))))
    assert 14 not in found
    assert len(found[13]) == MAX_WIRE_BYTES


@pytest.mark.parametrize(
    "changes",
    [{"peer": "x" * (MAX_PEER + 1)}, {"peer": "a\0b"}, {"channel_id": b"short"}, {"wire_bytes": bytes(MAX_WIRE_BYTES + 1)}],
)
def test_what_does_not_fit_into_done(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        messages.succeeded(5, opened(**changes))
