"""The credential of suite 5: its vectors, and every truncation and every changed byte of one."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import MalformedHandshake
from stcp_proxy.protocol.credential import Credential, binding_message, decode_credential, parse_credential
from stcp_proxy.protocol.wire import MAX_CREDENTIAL, MIN_CREDENTIAL, Role

from .fixed import VECTORS

CREDENTIALS = pytest.mark.parametrize("vector", VECTORS["credentials"], ids=lambda vector: vector["name"])
SMALL = Credential((b"leaf", b"authority"), 7, b"signature")


@CREDENTIALS
def test_credential_of_the_vectors(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["credential"])
    credential = decode_credential(encoded)
    assert [der.hex() for der in credential.certificates] == vector["certificates"]
    assert credential.not_after == int(vector["not_after"])
    assert credential.signature.hex() == vector["signature"]
    assert credential.encode() == encoded
    message = binding_message(Role(vector["role"]), bytes.fromhex(vector["static"]), credential.not_after)
    assert message.hex() == vector["binding"]
    key = x509.load_der_x509_certificate(credential.certificates[0]).public_key()
    assert isinstance(key, Ed25519PublicKey)
    key.verify(credential.signature, message)


@pytest.mark.parametrize("vector", VECTORS["refused_credentials"], ids=lambda vector: vector["why"])
def test_refused_credential_of_the_vectors(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedHandshake, match="credential"):
        decode_credential(bytes.fromhex(vector["credential"]))


@CREDENTIALS
def test_every_truncation_needs_more_bytes(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["credential"])
    for end in range(len(encoded)):
        assert parse_credential(encoded[:end]) is None
        with pytest.raises(MalformedHandshake, match="cut short"):
            decode_credential(encoded[:end])
    assert parse_credential(encoded) == (decode_credential(encoded), len(encoded))
    assert parse_credential(encoded + b"behind") == (decode_credential(encoded), len(encoded))


def test_every_changed_byte_is_refused_or_read_as_it_stands() -> None:
    """The parser keeps no byte back: what it accepts encodes to the same bytes."""
    good = SMALL.encode()
    for at in range(len(good)):
        for value in range(256):
            changed = good[:at] + bytes([value]) + good[at + 1 :]
            try:
                assert decode_credential(changed).encode() == changed
            except MalformedHandshake:
                continue


@given(st.binary(max_size=200))
def test_junk_is_refused_or_read_as_it_stands(junk: bytes) -> None:
    for data in (junk, b"\x01" + junk, b"\x01\x01\x00\x02" + junk):
        try:
            parsed = parse_credential(data)
        except MalformedHandshake:
            continue
        if parsed is not None:
            assert parsed[0].encode() == data[: parsed[1]]


@given(st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=8), st.integers(0, 2**64 - 1), st.binary(max_size=600))
def test_round_trip(certificates: list[bytes], not_after: int, signature: bytes) -> None:
    credential = Credential(tuple(certificates), not_after, signature)
    assert decode_credential(credential.encode()) == credential


def test_bounds() -> None:
    smallest = Credential((b"x",), 0, b"").encode()
    assert len(smallest) == MIN_CREDENTIAL
    largest = Credential((b"x" * (MAX_CREDENTIAL - MIN_CREDENTIAL + 1),), 0, b"").encode()
    assert len(largest) == MAX_CREDENTIAL
    assert decode_credential(largest).encode() == largest
    assert len(Credential((b"x",) * 255, 0, b"").encode()) == 777


@pytest.mark.parametrize(
    "credential",
    [
        Credential((), 0, b""),
        Credential((b"",), 0, b""),
        Credential((b"x",) * 256, 0, b""),
        Credential((b"x",), -1, b""),
        Credential((b"x",), 2**64, b""),
        Credential((b"x" * MAX_CREDENTIAL,), 0, b""),
        Credential((b"x" * 70000,), 0, b""),
        Credential((b"x",), 0, b"s" * 70000),
    ],
    ids=range(8),
)
def test_credential_outside_the_format_is_not_encoded(credential: Credential) -> None:
    with pytest.raises(ValueError, match=r"credential|64 bits"):
        credential.encode()


@pytest.mark.parametrize("start", [b"\x01\x01\x40\x00", b"\x01\x01\xff\xff", b"\x01\x02\x00\x01x\x3f\xfc"])
def test_length_beyond_the_limit_is_refused_before_its_bytes_arrive(start: bytes) -> None:
    with pytest.raises(MalformedHandshake, match="16384"):
        parse_credential(start)


@pytest.mark.parametrize("start", [b"\x00", b"\x02", b"\xff", b"\x01\x00"])
def test_first_wrong_byte_is_enough(start: bytes) -> None:
    with pytest.raises(MalformedHandshake, match=r"version|no certificate"):
        parse_credential(start)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_binding_covers_a_whole_key(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        binding_message(Role.INITIATOR, bytes(size), 0)
