"""Key text: what is accepted, what is refused, and that no refusal repeats its input."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy import keys
from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys import PrivateKey, PublicKey
from stcp_proxy.protocol.secret import Secret

RAW = bytes(range(1, 33))
BODY = base64.b64encode(RAW).decode()
PUB = "stcp-pub:" + BODY
KEY = "stcp-key:" + BODY
PSK = "stcp-psk:" + base64.b64encode(bytes(range(100, 132))).decode()


def public_text(number: int) -> str:
    return "stcp-pub:" + base64.b64encode(number.to_bytes(32, "little")).decode()


SECOND_FORMS = [
    public_text(number)
    for number in (int.from_bytes(RAW, "little") + 2**255, 9 + 2**255 - 19, 9 + 2**255, 2**255 - 19, 2**255 - 18, 2**256 - 1)
]


def refusal(parse: Callable[[str], object], text: str) -> str:
    """The message of a refusal, which holds no part of the key."""
    with pytest.raises(KeyFileError) as caught:
        parse(text)
    message = str(caught.value)
    assert BODY[:12] not in message
    assert BODY[-12:] not in message
    return message


@given(st.binary(min_size=32, max_size=32))
def test_keys_round_trip(raw: bytes) -> None:
    private = PrivateKey(Secret(raw))
    assert PrivateKey.parse(keys.format_private_key(private)) == private
    assert PublicKey.parse(str(private.public)) == private.public


def test_public_half_is_rfc_7748s() -> None:
    alice = PrivateKey(Secret(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")))
    assert alice.public.raw.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


def test_generated_keys_differ_and_psk_round_trips() -> None:
    assert PrivateKey.generate() != PrivateKey.generate()
    psk = keys.generate_psk()
    assert keys.parse_psk(keys.format_psk(psk) + "\n") == psk


def test_public_key_is_a_dictionary_key_and_a_private_one_shows_nothing() -> None:
    assert {PublicKey(RAW): 1}[PublicKey.parse(f"  {PUB}\n")] == 1
    assert PUB in repr(PublicKey(RAW))
    assert BODY[:12] not in repr(PrivateKey.parse(KEY)) + str(PrivateKey.parse(KEY))


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (PublicKey.parse, KEY, "exposed"),
        (PublicKey.parse, "stcp-psk:" + BODY, "exposed"),
        (PublicKey.parse, KEY[:-9], "exposed"),
        (PublicKey.parse, KEY.upper(), "exposed"),
        (PublicKey.parse, "db=" + KEY, "exposed"),
        (PublicKey.parse, BODY, "does not start with 'stcp-pub:'"),
        (PublicKey.parse, "STCP-PUB:" + BODY, "small letters"),
        (PublicKey.parse, "", "does not start"),
        (PublicKey.parse, PUB[:-1], "cut short"),
        (PublicKey.parse, PUB + "AAAA", "cut short"),
        (PublicKey.parse, "stcp-pub:" + BODY[:-2] + "B=", "damaged"),  # non-zero bits behind the last byte
        (PublicKey.parse, PUB.replace("E", "é", 1), "damaged"),
        (PublicKey.parse, PUB[:20] + " " + PUB[20:], "damaged"),
        (PublicKey.parse, "stcp-pub:" + base64.b64encode(bytes(32)).decode(), "not usable"),
        (PublicKey.parse, "stcp-pub:" + base64.b64encode(b"\1" + bytes(31)).decode(), "not usable"),
        *((PublicKey.parse, text, "not in the form that 'stcp-proxy pubkey' prints") for text in SECOND_FORMS),
        (PublicKey.parse, public_text(2**255 - 20), "not usable"),  # the largest number that is canonical
        (PrivateKey.parse, PUB, "this is a public key, where a private key belongs"),
        (PrivateKey.parse, "stcp-psk:" + BODY, "this is a shared secret, where a private key belongs"),
        (PrivateKey.parse, KEY[:-4], "cut short"),
        (PrivateKey.parse, BODY, "does not start"),
        (keys.parse_psk, KEY, "this is a private key, where a shared secret belongs"),
        (keys.parse_psk, "stcp-psk:" + base64.b64encode(b"correct horse battery staple abc").decode(), "not random"),
        (keys.parse_psk, "stcp-psk:" + base64.b64encode(b"\xff" * 32).decode(), "not random"),
    ],
)
def test_text_refused(parse: Callable[[str], object], text: str, says: str) -> None:
    assert says in refusal(parse, text)


@given(st.text())
def test_any_text_is_a_key_or_a_refusal(text: str) -> None:
    for parse in (PublicKey.parse, PrivateKey.parse, keys.parse_psk):
        with pytest.raises(KeyFileError):
            parse(text)


@pytest.mark.parametrize("number", [9, 2**255 - 21])
def test_smallest_and_largest_public_keys(number: int) -> None:
    """The prime is 2^255 - 19. It is a second form of 0, and the number below it has low order."""
    assert PublicKey.parse(public_text(number)).raw == number.to_bytes(32, "little")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_public_key_has_one_length(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey(bytes(length))
