"""Section 1: a handshake of each suite, with a trace of the symmetric state."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .credentials import credential
from .primitives import dh, hmac256, public, seeded, sha256

PATTERNS = {1: "IKhfs", 2: "IK", 3: "NNhfs+psk0", 4: "NNpsk0", 5: "XXhfs", 6: "IKhfs+psk2"}


class Symmetric:
    """Noise's symmetric state, noting everything that happens to it."""

    def __init__(self, name: str) -> None:
        raw = name.encode()
        self.h = raw.ljust(32, b"\0") if len(raw) <= 32 else sha256(raw)
        self.ck = self.h
        self.k: bytes | None = None
        self.n = 0
        self.trace: list[dict[str, str]] = []

    def note(self, op: str, what: str, data: bytes, **results: bytes) -> None:
        self.trace.append({"op": op, "what": what, "input": data.hex(), **{key: value.hex() for key, value in results.items()}})

    def mix_hash(self, what: str, data: bytes) -> None:
        self.h = sha256(self.h + data)
        self.note("mix_hash", what, data, h=self.h)

    def mix_key(self, what: str, material: bytes) -> None:
        temp = hmac256(self.ck, material)
        self.ck = hmac256(temp, b"\x01")
        self.k, self.n = hmac256(temp, self.ck + b"\x02"), 0
        self.note("mix_key", what, material, ck=self.ck)

    def mix_key_and_hash(self, what: str, material: bytes) -> None:
        temp = hmac256(self.ck, material)
        self.ck = hmac256(temp, b"\x01")
        second = hmac256(temp, self.ck + b"\x02")
        self.k, self.n = hmac256(temp, second + b"\x03"), 0
        self.h = sha256(self.h + second)
        self.note("mix_key_and_hash", what, material, ck=self.ck, h=self.h)

    def encrypt_and_hash(self, what: str, plaintext: bytes) -> bytes:
        ciphertext = plaintext  # without a key, as in message 1 of suite 5
        if self.k is not None:
            ciphertext = AESGCM(self.k).encrypt(bytes(4) + self.n.to_bytes(8, "big"), plaintext, self.h)
            self.n += 1
        self.h = sha256(self.h + ciphertext)
        self.note("encrypt_and_hash", what, plaintext, ciphertext=ciphertext, h=self.h)
        return ciphertext

    def split(self) -> tuple[bytes, bytes]:
        temp = hmac256(self.ck, b"")
        first = hmac256(temp, b"\x01")
        return first, hmac256(temp, first + b"\x02")


def handshake(suite: int, kem: tuple[bytes, bytes] | None) -> dict[str, Any]:
    """One handshake, both sides at once.

    Args:
        suite: 1 to 6.
        kem: the encapsulation (ciphertext, shared secret) to reuse; None for a new one.
    """
    keys, hybrid, secret, certified = suite in (1, 2, 6), suite in (1, 3, 5, 6), suite in (3, 4, 6), suite == 5
    inputs: dict[str, bytes] = {}
    name = f"Noise_{PATTERNS[suite]}_25519{'+MLKEM768' if hybrid else ''}_AESGCM_SHA256"
    prologue = b"STCP" + bytes([1, suite])
    e_i, e_r = seeded(f"suite {suite} initiator ephemeral"), seeded(f"suite {suite} responder ephemeral")
    inputs |= {"initiator_ephemeral_private": e_i, "initiator_ephemeral_public": public(e_i)}
    inputs |= {"responder_ephemeral_private": e_r, "responder_ephemeral_public": public(e_r)}
    s_i, s_r, psk = seeded("initiator static"), seeded("responder static"), seeded("shared secret")
    if keys or certified:
        inputs |= {"initiator_static_private": s_i, "initiator_static_public": public(s_i)}
        inputs |= {"responder_static_private": s_r, "responder_static_public": public(s_r)}
    if secret:
        inputs |= {"psk": psk}
    credential_i = credential_r = b""
    if certified:
        credential_i, credential_r = credential("initiator", 1, public(s_i)), credential("responder", 2, public(s_r))
        inputs |= {"initiator_credential": credential_i, "responder_credential": credential_r}
    seed = seeded(f"suite {suite} kem", 64)
    kem_key = MLKEM768PrivateKey.from_seed_bytes(seed)
    kem_public = kem_key.public_key().public_bytes_raw()
    if hybrid:
        if kem is None:
            kem_shared, kem_ciphertext = kem_key.public_key().encapsulate()
        else:
            kem_ciphertext, kem_shared = kem
        assert kem_key.decapsulate(kem_ciphertext) == kem_shared
        inputs |= {"kem_seed": seed, "kem_public": kem_public, "kem_ciphertext": kem_ciphertext, "kem_shared": kem_shared}

    state = Symmetric(name)
    state.mix_hash("prologue", prologue)
    if keys:
        state.mix_hash("responder's static key", public(s_r))

    # message 1:  e, es, e1, s, ss   or   psk, e, e1   or   e, e1
    if secret and not keys:
        state.mix_key_and_hash("psk", psk)
    one = public(e_i)
    state.mix_hash("e", public(e_i))
    if secret:
        state.mix_key("e, again for psk", public(e_i))
    if keys:
        state.mix_key("es", dh(e_i, public(s_r)))
    if hybrid:
        one += state.encrypt_and_hash("e1", kem_public)
    if keys:
        one += state.encrypt_and_hash("s", public(s_i))
        state.mix_key("ss", dh(s_i, public(s_r)))
    one += state.encrypt_and_hash("payload of message 1", b"")

    # message 2:  e, ee, ekem1, se (, psk)   or   e, ee, ekem1   or   e, ee, ekem1, s, es
    two = public(e_r)
    state.mix_hash("e", public(e_r))
    if secret:
        state.mix_key("e, again for psk", public(e_r))
    state.mix_key("ee", dh(e_r, public(e_i)))
    if hybrid:
        two += state.encrypt_and_hash("ekem1", kem_ciphertext)
        state.mix_key("ekem1, the shared secret", kem_shared)
    if keys:
        state.mix_key("se", dh(e_r, public(s_i)))
    if secret and keys:
        state.mix_key_and_hash("psk", psk)
    if certified:
        two += state.encrypt_and_hash("s", public(s_r))
        state.mix_key("es", dh(s_r, public(e_i)))
    two += state.encrypt_and_hash("payload of message 2", credential_r)

    # message 3, with certificates alone:  s, se
    three = b""
    if certified:
        three += state.encrypt_and_hash("s", public(s_i))
        state.mix_key("se", dh(s_i, public(e_r)))
        three += state.encrypt_and_hash("payload of message 3", credential_i)

    forth, back = state.split()
    return {
        "suite": suite,
        "noise_name": name,
        **{key: value.hex() for key, value in inputs.items()},
        "message_1": (prologue + len(one).to_bytes(2, "big") + one).hex(),
        "message_2": (len(two).to_bytes(2, "big") + two).hex(),
        **({"message_3": (len(three).to_bytes(2, "big") + three).hex()} if certified else {}),
        "handshake_hash": state.h.hex(),
        "channel_id": state.h[:8].hex(),
        "key_to_responder": forth.hex(),
        "key_to_initiator": back.hex(),
        "trace": state.trace,
    }
