"""Public keys that are invalid: X25519 points of low order, ML-KEM keys and ciphertexts."""

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

from .fixed import ALL_SUITES, RESPONDER, WITH_KEYS, credentials, each_suite, make_initiator, make_responder

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
    with pytest.raises(MalformedHandshake, match="low order"):
        responder.receive(make_initiator(suite, mine=LowOrder(point)).message_1())


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
