"""The Noise handshakes of STCP/1 (docs/PROTOCOL.md, section 1; Noise Protocol Framework, revision 34).

The code follows the pattern tables, and checks nothing that an attacker would not check. A hostile case gives it a public key
of low order or an encapsulation key that is not valid, and the messages are consistent all the same.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stcp_conformance.suites import Suite

KEY, TAG = 32, 16
ENCAPSULATION_KEY, CIPHERTEXT = 1184, 1088
LOW_ORDER = bytes(KEY)
"""A public key with which every X25519 result is zero."""
INVALID_ENCAPSULATION_KEY = b"\xff" * ENCAPSULATION_KEY
"""Its coefficients are 4095, above the modulus 3329: FIPS 203's check refuses it."""

Trace = Callable[[str, bytes, bytes, bytes], None]
"""Is told each operation of the symmetric state: its name, its input, ck and h after it."""


class KeyPair:
    """An X25519 key pair.

    Args:
        private: its 32 private bytes. [default: random]
        public: a public key to send instead of the right one; every result with this pair then counts as zero.
        second_form: send the public key with its highest bit set, which X25519 ignores.
    """

    def __init__(self, private: bytes | None = None, *, public: bytes | None = None, second_form: bool = False) -> None:
        self.private = private or os.urandom(KEY)
        self._key = X25519PrivateKey.from_private_bytes(self.private)
        self.zero = public is not None
        self.public = public or self._key.public_key().public_bytes_raw()
        if second_form:
            self.public = self.public[:-1] + bytes([self.public[-1] | 0x80])

    def exchange(self, public: bytes) -> bytes:
        if self.zero or public == LOW_ORDER:
            return bytes(KEY)
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))


def nonce(n: int) -> bytes:
    return bytes(4) + n.to_bytes(8, "big")


def hkdf(ck: bytes, data: bytes, count: int) -> list[bytes]:
    """HKDF as Noise defines it: `count` outputs of 32 bytes."""
    temporary = hmac.digest(ck, data, "sha256")
    outputs, last = [], b""
    for number in range(1, count + 1):
        last = hmac.digest(temporary, last + bytes([number]), "sha256")
        outputs.append(last)
    return outputs


class Handshake:
    """One side of a handshake.

    Args:
        suite: the suite.
        initiator: whether this side is the initiator.
        static: own key pair, where the suite has one.
        remote_static: the responder's public key, where the initiator has it beforehand.
        psk: the shared secret, where the suite has one.
        ephemeral: own ephemeral key pair. [default: a new one]
        kem: the initiator's ML-KEM key. [default: a new one]
        encapsulation_key: bytes to send as `e1` instead of the KEM's public key.
        encapsulation: (shared secret, ciphertext) that the responder uses. [default: encapsulate]
        trace: is told each operation.
        prologue: the prologue. [default: that of the suite]

    Attributes:
        h: the handshake hash, final after the last message.
        remote_static: the peer's static key, once it is known.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        initiator: bool,
        static: KeyPair | None = None,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
        ephemeral: KeyPair | None = None,
        kem: MLKEM768PrivateKey | None = None,
        encapsulation_key: bytes | None = None,
        encapsulation: tuple[bytes, bytes] | None = None,
        trace: Trace | None = None,
        prologue: bytes | None = None,
    ) -> None:
        self.suite, self.initiator, self.static, self.remote_static, self.psk = suite, initiator, static, remote_static, psk
        self.ephemeral = ephemeral or KeyPair()
        self.remote_ephemeral = b""
        self.kem = kem
        self._encapsulation_key = encapsulation_key
        self._encapsulation = encapsulation
        self.remote_encapsulation_key = b""
        self._trace = trace
        self._key: bytes | None = None
        self._n = 0
        name = suite.name.encode()
        self.h = name.ljust(KEY, b"\0") if len(name) <= KEY else hashlib.sha256(name).digest()
        self.ck = self.h
        self._mix_hash(suite.prologue if prologue is None else prologue)
        if suite.knows_responder:
            known = remote_static if initiator else static.public if static else None
            assert known is not None
            self._mix_hash(known)

    def write(self, number: int, payload: bytes = b"") -> bytes:
        """Message `number`, from 1."""
        message = b""
        for token in self.suite.messages[number - 1]:
            if token == "e":
                message += self.ephemeral.public
                self._mix_ephemeral(self.ephemeral.public)
            elif token == "s":
                assert self.static is not None
                message += self._encrypt(self.static.public)
            elif token == "e1":
                self.kem = self.kem or MLKEM768PrivateKey.generate()
                message += self._encrypt(self._encapsulation_key or self.kem.public_key().public_bytes_raw())
            elif token == "ekem1":
                secret, ciphertext = self._encapsulation or self._encapsulate()
                message += self._encrypt(ciphertext)
                self._mix_key(secret)
            else:
                self._mix_token(token)
        return message + self._encrypt(payload)

    def read(self, number: int, message: bytes) -> bytes:
        """Read message `number`. Returns its payload.

        Raises:
            InvalidTag: it is not authentic.
        """
        at = 0

        def take(size: int) -> bytes:
            nonlocal at
            at += size
            return message[at - size : at]

        for token in self.suite.messages[number - 1]:
            tag = TAG if self._key else 0
            if token == "e":
                self.remote_ephemeral = take(KEY)
                self._mix_ephemeral(self.remote_ephemeral)
            elif token == "s":
                self.remote_static = self._decrypt(take(KEY + tag))
            elif token == "e1":
                self.remote_encapsulation_key = self._decrypt(take(ENCAPSULATION_KEY + tag))
            elif token == "ekem1":
                assert self.kem is not None
                self._mix_key(self.kem.decapsulate(self._decrypt(take(CIPHERTEXT + tag))))
            else:
                self._mix_token(token)
        return self._decrypt(message[at:])

    def split(self) -> tuple[bytes, bytes]:
        """The first keys of both directions: from the initiator, from the responder."""
        first, second = hkdf(self.ck, b"", 2)
        return first, second

    def _encapsulate(self) -> tuple[bytes, bytes]:
        return MLKEM768PublicKey.from_public_bytes(self.remote_encapsulation_key).encapsulate()

    def _mix_token(self, token: str) -> None:
        if token == "psk":
            assert self.psk is not None
            self._mix_key_and_hash(self.psk)
            return
        ours, theirs = (token[0], token[1]) if self.initiator else (token[1], token[0])
        pair = self.ephemeral if ours == "e" else self.static
        public = self.remote_ephemeral if theirs == "e" else self.remote_static
        assert pair is not None
        assert public is not None
        self._mix_key(pair.exchange(public))

    def _mix_ephemeral(self, public: bytes) -> None:
        self._mix_hash(public)
        if self.suite.psk:
            self._mix_key(public)

    # -- the symmetric state

    def _note(self, operation: str, data: bytes) -> None:
        if self._trace:
            self._trace(operation, data, self.ck, self.h)

    def _mix_hash(self, data: bytes, *, quiet: bool = False) -> None:
        self.h = hashlib.sha256(self.h + data).digest()
        if not quiet:
            self._note("mix_hash", data)

    def _mix_key(self, data: bytes) -> None:
        self.ck, self._key = hkdf(self.ck, data, 2)
        self._n = 0
        self._note("mix_key", data)

    def _mix_key_and_hash(self, data: bytes) -> None:
        self.ck, mixed, self._key = hkdf(self.ck, data, 3)
        self._n = 0
        self._mix_hash(mixed, quiet=True)
        self._note("mix_key_and_hash", data)

    def _encrypt(self, plaintext: bytes) -> bytes:
        sent = plaintext
        if self._key:
            sent = AESGCM(self._key).encrypt(nonce(self._n), plaintext, self.h)
            self._n += 1
        self._mix_hash(sent, quiet=True)
        self._note("encrypt_and_hash", plaintext)
        return sent

    def _decrypt(self, received: bytes) -> bytes:
        plaintext = received
        if self._key:
            plaintext = AESGCM(self._key).decrypt(nonce(self._n), received, self.h)
            self._n += 1
        self._mix_hash(received, quiet=True)
        self._note("encrypt_and_hash", plaintext)
        return plaintext
