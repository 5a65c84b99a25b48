"""The Noise Protocol Framework, revision 34, for X25519, SHA-256, one AEAD and the `hfs` and `psk` modifiers.

Names are the specification's (https://noiseprotocol.org/noise.html; e1 and ekem1 from the KEM-based hybrid forward secrecy
extension). Patterns are data: a tuple of messages, each a tuple of tokens. A message is processed on a copy of the state and
committed when all of it succeeded, so a bad message changes nothing.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stcp_proxy.errors import HandshakeNotAuthentic, MalformedHandshake
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import HASH_LEN, KEM_CIPHERTEXT_LEN, KEM_PUBLIC_LEN, KEY_LEN, TAG_LEN

MAX_NONCE: Final = (1 << 64) - 1
_NONCE = struct.Struct(">IQ")
_BLOCK_LEN: Final = 64
_INNER: Final = bytes(each ^ 0x36 for each in range(256))
_OUTER: Final = bytes(each ^ 0x5C for each in range(256))
"""The pads of HMAC, for `bytes.translate`; and what is behind a key of 32 bytes, which is padded with zeros."""
_INNER_REST: Final = b"\x36" * (_BLOCK_LEN - HASH_LEN)
_OUTER_REST: Final = b"\x5c" * (_BLOCK_LEN - HASH_LEN)


class Aead(Protocol):
    """What a CipherState needs of an AEAD."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Cipher:
    """A cipher of Noise section 12: its name, its construction from a key, and its nonce encoding."""

    name: str
    make: Callable[[bytes], Aead]
    nonce: Callable[[int], bytes]


AES_GCM: Final = Cipher("AESGCM", AESGCM, lambda n: _NONCE.pack(0, n))


@dataclass(frozen=True, slots=True)
class Pattern:
    """A handshake pattern.

    Attributes:
        name: as it stands in the protocol name, modifiers included.
        messages: the tokens of each message, the initiator's first.
        knows_responder: the pre-message ``<- s``.
    """

    name: str
    messages: tuple[tuple[str, ...], ...]
    knows_responder: bool = False

    @property
    def uses_psk(self) -> bool:
        return "psk" in self.name


IK: Final = Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), knows_responder=True)
IK_HFS: Final = Pattern("IKhfs", (("e", "es", "e1", "s", "ss"), ("e", "ee", "ekem1", "se")), knows_responder=True)
NN_PSK0: Final = Pattern("NNpsk0", (("psk", "e"), ("e", "ee")))
NN_HFS_PSK0: Final = Pattern("NNhfs+psk0", (("psk", "e", "e1"), ("e", "ee", "ekem1")))


class KeyPair:
    """An X25519 key pair.

    Args:
        private: 32 bytes, or a key object.
    """

    __slots__ = ("_private", "_with_peers", "public")
    _MOST_PEERS: Final = 1024

    def __init__(self, private: Secret | X25519PrivateKey) -> None:
        key = X25519PrivateKey.from_private_bytes(private.reveal()) if isinstance(private, Secret) else private
        self._private: Final = key
        self._with_peers: Final[dict[bytes, bytes]] = {}
        self.public: Final[bytes] = key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """X25519 with a public key of 32 bytes.

        Raises:
            MalformedHandshake: the result is all zero: the other key is of low order.
        """
        try:
            return self._private.exchange(_public_key(public))
        except ValueError:
            raise MalformedHandshake("the peer sent a public key of low order") from None

    def exchange_again(self, public: bytes) -> bytes:
        """`exchange` for two static keys: the result is always the same, so it is computed once for each peer.

        Strangers choose their keys; what is kept for them is bounded.
        """
        shared = self._with_peers.get(public)
        if shared is None:
            if len(self._with_peers) >= self._MOST_PEERS:
                self._with_peers.clear()
            shared = self._with_peers[public] = self.exchange(public)
        return shared


@functools.lru_cache(maxsize=256)
def _public_key(raw: bytes) -> X25519PublicKey:
    """The key object for 32 bytes: a peer's own key comes with each of its connections, an ephemeral one twice in a handshake."""
    return X25519PublicKey.from_public_bytes(raw)


class Entropy:
    """Where fresh keys come from. Tests replace it by fixed values; each value is used once."""

    def key_pair(self) -> KeyPair:
        return KeyPair(X25519PrivateKey.generate())

    def kem_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.generate()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Encapsulate towards `public` (1184 bytes). Returns (shared secret, ciphertext)."""
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()


SYSTEM_ENTROPY: Final = Entropy()


class CipherState:
    """Section 5.1: a key and a nonce counter; without a key it passes plaintext through."""

    __slots__ = ("_aead", "_cipher", "_n")

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher
        self._aead: Aead | None = None
        self._n = 0

    def initialize_key(self, key: bytes) -> None:
        self._aead = self._cipher.make(key)
        self._n = 0

    @property
    def has_key(self) -> bool:
        return self._aead is not None

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        if self._aead is None:
            return plaintext
        return self._aead.encrypt(self._cipher.nonce(self._take()), plaintext, ad)

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes:
        if self._aead is None:
            return ciphertext
        return self._aead.decrypt(self._cipher.nonce(self._take()), ciphertext, ad)

    def copy(self) -> CipherState:
        """A state of its own, equal to this one."""
        new = CipherState(self._cipher)
        new._aead, new._n = self._aead, self._n
        return new

    def _take(self) -> int:
        n = self._n
        if n >= MAX_NONCE:
            raise MalformedHandshake("a handshake key has used every nonce")
        self._n = n + 1
        return n


def _pads(key: bytes) -> tuple[bytes, bytes]:
    """The inner and outer block of HMAC-SHA-256 for a key of 32 bytes."""
    return key.translate(_INNER) + _INNER_REST, key.translate(_OUTER) + _OUTER_REST


def _hmac(pads: tuple[bytes, bytes], data: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104).

    Two thirds of the time of `hmac.digest`, which has OpenSSL look up the algorithm for every call; a handshake needs eighteen.
    """
    inner, outer = pads
    return sha256(outer + sha256(inner + data).digest()).digest()


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> tuple[bytes, ...]:
    """HKDF of section 4.3.

    Args:
        chaining_key: 32 bytes.
        material: input key material, 0 or 32 bytes (32 for a KEM's shared secret too).
        outputs: 2 or 3.
    """
    temp = _pads(_hmac(_pads(chaining_key), material))
    first = _hmac(temp, b"\1")
    second = _hmac(temp, first + b"\2")
    return (first, second) if outputs == 2 else (first, second, _hmac(temp, second + b"\3"))


class SymmetricState:
    """Section 5.2: chaining key, transcript hash and the CipherState under way."""

    __slots__ = ("cipher_state", "ck", "h")

    def __init__(self, protocol_name: bytes, cipher: Cipher) -> None:
        if len(protocol_name) <= HASH_LEN:
            self.h = protocol_name.ljust(HASH_LEN, b"\0")
        else:
            self.h = sha256(protocol_name).digest()
        self.ck = self.h
        self.cipher_state = CipherState(cipher)

    def copy(self) -> SymmetricState:
        """A state of its own, equal to this one."""
        new = object.__new__(SymmetricState)
        new.ck, new.h, new.cipher_state = self.ck, self.h, self.cipher_state.copy()
        return new

    def mix_key(self, material: bytes) -> None:
        self.ck, temp = hkdf(self.ck, material, 2)
        self.cipher_state.initialize_key(temp)

    def mix_hash(self, data: bytes) -> None:
        self.h = sha256(self.h + data).digest()

    def mix_key_and_hash(self, material: bytes) -> None:
        self.ck, temp_h, temp_k = hkdf(self.ck, material, 3)
        self.mix_hash(temp_h)
        self.cipher_state.initialize_key(temp_k)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self.cipher_state.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = self.cipher_state.decrypt_with_ad(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[Secret, Secret]:
        k1, k2 = hkdf(self.ck, b"", 2)
        return Secret(k1), Secret(k2)


@functools.lru_cache(maxsize=64)
def _before_messages(pattern: str, cipher: Cipher, prologue: bytes, responder: bytes | None) -> SymmetricState:
    """The state with the prologue and the pre-message mixed in: public, and the same for every handshake with one responder.

    Nobody changes it: messages work on copies.
    """
    kem = "+MLKEM768" if "hfs" in pattern else ""
    symmetric = SymmetricState(f"Noise_{pattern}_25519{kem}_{cipher.name}_SHA256".encode(), cipher)
    symmetric.mix_hash(prologue)
    if responder is not None:
        symmetric.mix_hash(responder)
    return symmetric


@dataclass(slots=True)
class _Work:
    """All that a message may change; copied before it is processed."""

    symmetric: SymmetricState
    e: KeyPair | None = None
    re: bytes | None = None
    rs: bytes | None = None
    kem: MLKEM768PrivateKey | None = None
    rkem: bytes | None = None


class HandshakeState:
    """Section 5.3. `write_message` and `read_message` alternate, the initiator writing first.

    Args:
        pattern: the handshake pattern.
        initiator: this side's role.
        prologue: data both sides must agree on.
        static: this side's static key pair, where the pattern has one.
        remote_static: the responder's public key, where the pattern knows it beforehand.
        psk: the shared secret of a psk pattern.
        cipher: the AEAD.
        entropy: source of the ephemeral keys.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        prologue: bytes,
        static: KeyPair | None = None,
        remote_static: bytes | None = None,
        psk: Secret | None = None,
        cipher: Cipher = AES_GCM,
        entropy: Entropy = SYSTEM_ENTROPY,
    ) -> None:
        if pattern.uses_psk != (psk is not None):
            raise ValueError(f"pattern {pattern.name} and the presence of a shared secret disagree")
        known = None
        if pattern.knows_responder:
            known = remote_static if initiator else (static.public if static else None)
            if known is None:
                raise ValueError(f"pattern {pattern.name} needs the responder's static key")
        self._pattern = pattern
        self._initiator = initiator
        self._static = static
        self._psk = psk
        self._entropy = entropy
        self._work = _Work(_before_messages(pattern.name, cipher, prologue, known), rs=remote_static)
        self._next = 0

    @property
    def finished(self) -> bool:
        return self._next == len(self._pattern.messages)

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static public key, once known."""
        return self._work.rs

    @property
    def handshake_hash(self) -> bytes:
        return self._work.symmetric.h

    def split(self) -> tuple[Secret, Secret]:
        """The two transport keys, the initiator's sending key first. Only when `finished`."""
        if not self.finished:
            raise RuntimeError("split() before the last message")
        return self._work.symmetric.split()

    def write_message(self, payload: bytes = b"") -> bytes:
        """The next message, with `payload` encrypted at its end."""
        tokens = self._turn(writing=True)
        work = self._copy()
        out = bytearray()
        for token in tokens:
            if token == "e":
                work.e = self._entropy.key_pair()
                out += work.e.public
                self._mix_ephemeral(work, work.e.public)
            elif token == "s":
                out += work.symmetric.encrypt_and_hash(_need(self._static).public)
            elif token == "e1":
                work.kem = self._entropy.kem_key()
                out += work.symmetric.encrypt_and_hash(work.kem.public_key().public_bytes_raw())
            elif token == "ekem1":
                try:
                    shared, ciphertext = self._entropy.encapsulate(_need(work.rkem))
                except ValueError:
                    raise MalformedHandshake("the peer sent an ML-KEM key that is none") from None
                out += work.symmetric.encrypt_and_hash(ciphertext)
                work.symmetric.mix_key(shared)
            else:
                self._mix(token, work)
        out += work.symmetric.encrypt_and_hash(payload)
        self._commit(work)
        return bytes(out)

    def read_message(self, message: bytes) -> bytes:
        """Process the peer's next message and return its payload.

        Raises:
            MalformedHandshake: too short, or a key of low order.
            HandshakeNotAuthentic: a tag failed.
        """
        tokens = self._turn(writing=False)
        work = self._copy()
        rest = memoryview(message)

        def take(size: int) -> bytes:
            nonlocal rest
            if len(rest) < size:
                raise MalformedHandshake("a handshake message is shorter than its suite says")
            head, rest = bytes(rest[:size]), rest[size:]
            return head

        def take_encrypted(size: int) -> bytes:
            return take(size + TAG_LEN if work.symmetric.cipher_state.has_key else size)

        try:
            for token in tokens:
                if token == "e":
                    work.re = take(KEY_LEN)
                    self._mix_ephemeral(work, work.re)
                elif token == "s":
                    work.rs = work.symmetric.decrypt_and_hash(take_encrypted(KEY_LEN))
                elif token == "e1":
                    work.rkem = work.symmetric.decrypt_and_hash(take_encrypted(KEM_PUBLIC_LEN))
                elif token == "ekem1":
                    ciphertext = work.symmetric.decrypt_and_hash(take_encrypted(KEM_CIPHERTEXT_LEN))
                    work.symmetric.mix_key(_need(work.kem).decapsulate(ciphertext))
                else:
                    self._mix(token, work)
            if work.symmetric.cipher_state.has_key and len(rest) < TAG_LEN:
                raise MalformedHandshake("a handshake message is shorter than its suite says")
            payload = work.symmetric.decrypt_and_hash(bytes(rest))
        except InvalidTag:
            raise HandshakeNotAuthentic("a handshake message did not authenticate") from None
        self._commit(work)
        return payload

    def _turn(self, *, writing: bool) -> tuple[str, ...]:
        if self.finished:
            raise RuntimeError("the handshake is finished")
        ours = (self._next % 2 == 0) == self._initiator
        if ours != writing:
            raise RuntimeError("it is the other side's turn")
        return self._pattern.messages[self._next]

    def _copy(self) -> _Work:
        now = self._work
        return _Work(now.symmetric.copy(), now.e, now.re, now.rs, now.kem, now.rkem)

    def _commit(self, work: _Work) -> None:
        self._work = work
        self._next += 1

    def _mix_ephemeral(self, work: _Work, public: bytes) -> None:
        work.symmetric.mix_hash(public)
        if self._psk is not None:
            work.symmetric.mix_key(public)

    def _mix(self, token: str, work: _Work) -> None:
        """The tokens that are the same for both directions of a message."""
        if token == "psk":
            work.symmetric.mix_key_and_hash(_need(self._psk).reveal())
            return
        # The first letter names the initiator's key, the second the responder's.
        mine, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        pair = _need(work.e if mine == "e" else self._static)
        public = _need(work.re if theirs == "e" else work.rs)
        work.symmetric.mix_key(pair.exchange_again(public) if token == "ss" else pair.exchange(public))


_T = TypeVar("_T")


def _need(value: _T | None) -> _T:
    if value is None:
        raise RuntimeError("the pattern uses a key that is not there")
    return value
