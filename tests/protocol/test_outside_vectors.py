"""Noise vectors that others published: the framework under STCP's handshake does what everybody's does."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from stcp_proxy.protocol.noise import HandshakeState
from stcp_proxy.protocol.patterns import IK, NN_PSK0, XX_HFS, Pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.symmetric import AES_GCM, Cipher, CipherState

from .fixed import Fixed, outside_vectors, pair

NN = Pattern("NN", (("e",), ("e", "ee")))
IK_PSK2 = Pattern("IKpsk2", (("e", "es", "s", "ss"), ("e", "ee", "se", "psk")), knows_responder=True)
CHACHA = Cipher("ChaChaPoly", ChaCha20Poly1305, lambda n: bytes(4) + n.to_bytes(8, "little"))

PATTERNS = {pattern.name: pattern for pattern in (NN, IK, NN_PSK0, IK_PSK2)}

NOISE = outside_vectors("noise.json")
HYBRID = outside_vectors("noise_xxhfs_published.json")
MISSING = "the outside vectors are not there: set STCP_VECTORS to their folder"


def hexed(vector: dict[str, Any], key: str) -> bytes | None:
    return bytes.fromhex(vector[key]) if key in vector else None


def side(vector: dict[str, Any], who: str) -> HandshakeState:
    """One side of a vector's handshake."""
    initiator = who == "init"
    static, psks = hexed(vector, f"{who}_static"), vector.get(f"{who}_psks")
    return HandshakeState(
        PATTERNS[vector["protocol_name"].split("_")[1]],
        initiator=initiator,
        prologue=bytes.fromhex(vector[f"{who}_prologue"]),
        static=pair(static) if static else None,
        remote_static=hexed(vector, "init_remote_static") if initiator else None,
        psk=Secret(bytes.fromhex(psks[0])) if psks else None,
        entropy=Fixed(ephemeral=pair(vector[f"{who}_ephemeral"])),
    )


@pytest.mark.skipif(not NOISE, reason=MISSING)
def test_all_of_them_are_there() -> None:
    assert len(NOISE) == 24


@pytest.mark.parametrize("vector", NOISE, ids=[vector["protocol_name"] for vector in NOISE])
def test_noise(vector: dict[str, Any]) -> None:
    sides = side(vector, "init"), side(vector, "resp")
    messages = vector["messages"]
    for i, message in enumerate(messages[:2]):
        payload, wire = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert sides[i].write_message(payload) == wire
        assert sides[1 - i].read_message(wire) == payload
    assert all(s.finished for s in sides)
    assert sides[0].handshake_hash == sides[1].handshake_hash
    if "handshake_hash" in vector:
        assert sides[0].handshake_hash.hex() == vector["handshake_hash"]
    keys = sides[0].split()
    assert sides[1].split() == keys
    transport = [CipherState(AES_GCM), CipherState(AES_GCM)]
    back = [CipherState(AES_GCM), CipherState(AES_GCM)]
    for states in (transport, back):
        for state, key in zip(states, keys, strict=True):
            state.initialize_key(key.reveal())
    assert len(messages) > 2
    for i, message in enumerate(messages[2:]):
        payload, wire = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        assert transport[i % 2].encrypt_with_ad(b"", payload) == wire
        assert back[i % 2].decrypt_with_ad(b"", wire) == payload


class RecordingKem:
    """The initiator's KEM key, which also tells what was encapsulated towards it."""

    def __init__(self, key: MLKEM768PrivateKey) -> None:
        self._key = key
        self.encapsulation: tuple[bytes, bytes] | None = None

    def public_key(self) -> MLKEM768PublicKey:
        return self._key.public_key()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        shared = self._key.decapsulate(ciphertext)
        self.encapsulation = shared, ciphertext
        return shared


@pytest.mark.skipif(not HYBRID, reason=MISSING)
def test_the_published_hybrid_vector() -> None:
    """XXhfs: the order and the meaning of e1 and ekem1.

    The initiator is checked whole, decapsulation included. The responder is given the encapsulation that the initiator found in
    message 2, for encapsulation cannot be told its randomness.
    """
    (vector,) = HYBRID
    kem = RecordingKem(MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(vector["init_kem_seed"])))
    initiator = HandshakeState(
        XX_HFS,
        initiator=True,
        prologue=b"",
        static=pair(vector["init_static"]),
        cipher=CHACHA,
        entropy=Fixed(ephemeral=pair(vector["init_ephemeral"]), kem=kem),  # type: ignore[arg-type]
    )
    wire = [bytes.fromhex(message["ciphertext"]) for message in vector["messages"]]
    assert initiator.write_message() == wire[0]
    assert initiator.read_message(wire[1]) == b""
    assert initiator.write_message() == wire[2]
    assert initiator.handshake_hash.hex() == vector["handshake_hash"]
    keys = [key.reveal().hex() for key in initiator.split()]
    assert keys == [vector["cs1_k"], vector["cs2_k"]]

    responder = HandshakeState(
        XX_HFS,
        initiator=False,
        prologue=b"",
        static=pair(vector["resp_static"]),
        cipher=CHACHA,
        entropy=Fixed(ephemeral=pair(vector["resp_ephemeral"]), encapsulation=kem.encapsulation),
    )
    assert responder.read_message(wire[0]) == b""
    assert responder.write_message() == wire[1]
    assert responder.read_message(wire[2]) == b""
    assert responder.handshake_hash.hex() == vector["handshake_hash"]
    assert [key.reveal().hex() for key in responder.split()] == keys
