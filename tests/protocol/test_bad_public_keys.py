"""Public keys that are invalid: X25519 points of low order and second forms of keys, ML-KEM keys and ciphertexts."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from stcp_proxy.errors import (
    HandshakeNotAuthentic,
    MalformedHandshake,
)
from stcp_proxy.protocol import wire
from stcp_proxy.protocol.handshake import Responder, State
from stcp_proxy.protocol.noise import Entropy, KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite

from .fixed import ALL_SUITES, INITIATOR, RESPONDER, WITH_KEYS, credentials, each_suite, make_initiator, make_responder

P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]
LOW_POINTS = pytest.mark.parametrize("point", [value.to_bytes(32, "little") for value in LOW_ORDER], ids=range(len(LOW_ORDER)))

ORDER = 2**252 + 27742317777372353535851937790883648493
NINE = (5 * ORDER - 1).to_bytes(32, "little")
"""The private key of the public key 9. Numbers below 19 have a second form below 2^255 too."""
HIGHEST_BIT = 1 << 255


class SecondForm(KeyPair):
    """A key pair that sends its public key in another form. All its exchanges are right."""

    def __init__(self, private: bytes, number: int) -> None:
        super().__init__(Secret(private))
        self.private, self.first = private, self.public
        self.public = number.to_bytes(32, "little")  # type: ignore[misc]
        assert self.public != self.first
        assert int.from_bytes(self.first, "little") == number % HIGHEST_BIT % P


SECOND_FORMS = pytest.mark.parametrize(
    "twin",
    [
        SecondForm(b"\x01" * 32, int.from_bytes(INITIATOR.public, "little") + HIGHEST_BIT),
        SecondForm(NINE, 9 + HIGHEST_BIT),
        SecondForm(NINE, 9 + P),
        SecondForm(NINE, 9 + P + HIGHEST_BIT),
    ],
    ids=["highest bit", "highest bit of 9", "9 and the prime", "both"],
)


def said_of_static(point: bytes) -> str:
    """What is said of a point of low order as a static key."""
    return "second form" if int.from_bytes(point, "little") >= P else "low order"


class LowOrder(KeyPair):
    """A key pair whose public key is a point of low order. All its exchanges give zero."""

    def __init__(self, point: bytes) -> None:
        super().__init__(Secret(b"\x09" * 32))
        self.public = point  # type: ignore[misc]

    def exchange(self, public: bytes) -> bytes:
        return bytes(32)


class LowEntropy(Entropy):
    def __init__(self, point: bytes) -> None:
        self._point = point

    def key_pair(self) -> KeyPair:
        return LowOrder(self._point)


@LOW_POINTS
@ALL_SUITES
def test_a_low_order_ephemeral_of_the_initiator(suite: Suite, point: bytes) -> None:
    """The attacker knows the result, zero, so all tags would fit. Only the check of the result refuses this."""
    responder = make_responder(suite)
    with pytest.raises(MalformedHandshake, match="low order"):
        responder.receive(make_initiator(suite, entropy=LowEntropy(point)).message_1())
    assert responder.state is State.ERROR


@LOW_POINTS
@ALL_SUITES
def test_a_low_order_ephemeral_of_the_responder(suite: Suite, point: bytes) -> None:
    initiator = make_initiator(suite)
    answer = make_responder(suite, entropy=LowEntropy(point)).receive(initiator.message_1())
    assert answer is not None
    with pytest.raises(MalformedHandshake, match="low order"):
        initiator.receive(answer.reply)
    assert initiator.state is State.ERROR


@LOW_POINTS
@WITH_KEYS
def test_a_low_order_static_key(suite: Suite, point: bytes) -> None:
    """Refused even when the access rule allows it."""
    responder = Responder({suite}, credentials(suite, RESPONDER), allowed=lambda _: True)
    with pytest.raises(MalformedHandshake, match=said_of_static(point)):
        responder.receive(make_initiator(suite, mine=LowOrder(point)).message_1())


@SECOND_FORMS
@WITH_KEYS
def test_a_second_form_of_a_static_key(suite: Suite, twin: SecondForm) -> None:
    """All tags fit, and a list of revoked keys does not have this form. Refused even when the access rule allows it."""
    asked: list[bytes] = []

    def allowed(static: bytes) -> bool:
        asked.append(static)
        return True

    responder = Responder({suite}, credentials(suite, RESPONDER), allowed=allowed)
    with pytest.raises(MalformedHandshake, match="second form of its public key"):
        responder.receive(make_initiator(suite, mine=twin).message_1())
    assert (responder.state, asked) == (State.ERROR, [])
    responder = Responder({suite}, credentials(suite, RESPONDER), allowed=allowed)
    first = KeyPair(Secret(twin.private))
    assert responder.receive(make_initiator(suite, mine=first).message_1()) is not None
    assert asked == [twin.first]


class BadKem(Entropy):
    """Sends an encapsulation key whose coefficients are out of range."""

    def kem_key(self) -> MLKEM768PrivateKey:
        class Key:
            def public_key(self) -> Key:
                return self

            def public_bytes_raw(self) -> bytes:
                return b"\xff" * wire.KEM_PUBLIC_LEN

        return Key()  # type: ignore[return-value]


@each_suite([Suite.HYBRID_KEYS, Suite.HYBRID_PSK, Suite.HYBRID_KEYS_PSK])
def test_an_invalid_kem_key(suite: Suite) -> None:
    responder = make_responder(suite)
    with pytest.raises(MalformedHandshake, match="ML-KEM"):
        responder.receive(make_initiator(suite, entropy=BadKem()).message_1())
    assert responder.state is State.ERROR


class WrongKem(Entropy):
    """Sends random bytes as ciphertext, which ML-KEM rejects implicitly."""

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return os.urandom(32), os.urandom(wire.KEM_CIPHERTEXT_LEN)


@each_suite([Suite.HYBRID_KEYS, Suite.HYBRID_PSK, Suite.HYBRID_KEYS_PSK])
def test_an_invalid_kem_ciphertext(suite: Suite) -> None:
    initiator = make_initiator(suite)
    answer = make_responder(suite, entropy=WrongKem()).receive(initiator.message_1())
    assert answer is not None
    with pytest.raises(HandshakeNotAuthentic):
        initiator.receive(answer.reply)
