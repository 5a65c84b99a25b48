"""The asymmetric half of Noise, revision 34: key pairs and HandshakeState, with the `hfs` and `psk` modifiers.

Names are the specification's (https://noiseprotocol.org/noise.html). The tokens e1 and ekem1 come from its extension for
hybrid forward secrecy with a KEM. A message is processed on a copy of the state, which is committed when all of it
succeeded: a bad message changes nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from stcp_proxy.errors import HandshakeNotAuthentic, MalformedHandshake
from stcp_proxy.protocol.patterns import Pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.symmetric import AES_GCM, Cipher, SymmetricState
from stcp_proxy.protocol.wire import KEM_CIPHERTEXT_LEN, KEM_PUBLIC_LEN, KEY_LEN, TAG_LEN, is_canonical_key


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
            MalformedHandshake: the result is all zero, because the public key is of low order.
        """
        try:
            return self._private.exchange(_public_key(public))
        except ValueError:
            raise MalformedHandshake("the peer sent a public key of low order") from None

    def exchange_again(self, public: bytes) -> bytes:
        """`exchange` for two static keys. The result is always the same, so it is computed once for each peer.

        The number of remembered results is bounded, because strangers choose their keys.
        """
        shared = self._with_peers.get(public)
        if shared is None:
            if len(self._with_peers) >= self._MOST_PEERS:
                self._with_peers.clear()
            shared = self._with_peers[public] = self.exchange(public)
        return shared


@functools.lru_cache(maxsize=256)
def _public_key(raw: bytes) -> X25519PublicKey:
    """The key object for 32 bytes. A static key comes with each connection of a peer, an ephemeral key twice in a handshake."""
    return X25519PublicKey.from_public_bytes(raw)


class Entropy:
    """The source of fresh keys. Each key is used once. Tests replace this source by fixed values."""

    def key_pair(self) -> KeyPair:
        return KeyPair(X25519PrivateKey.generate())

    def kem_key(self) -> MLKEM768PrivateKey:
        return MLKEM768PrivateKey.generate()

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Encapsulate towards `public` (1184 bytes). Returns (shared secret, ciphertext)."""
        return MLKEM768PublicKey.from_public_bytes(public).encapsulate()


SYSTEM_ENTROPY: Final = Entropy()


@functools.lru_cache(maxsize=64)
def _before_messages(pattern: Pattern, cipher: Cipher, prologue: bytes, responder: bytes | None) -> SymmetricState:
    """The state after the prologue and the pre-message. It is public, and the same for every handshake with one responder.

    Callers copy this state and never change it.
    """
    kem = "+MLKEM768" if pattern.uses_kem else ""
    symmetric = SymmetricState(f"Noise_{pattern.name}_25519{kem}_{cipher.name}_SHA256".encode(), cipher)
    symmetric.mix_hash(prologue)
    if responder is not None:
        symmetric.mix_hash(responder)
    return symmetric


@dataclass(slots=True)
class _Work:
    """Everything that a message may change. It is copied before a message is processed."""

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
        self._work = _Work(_before_messages(pattern, cipher, prologue, known), rs=remote_static)
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
            MalformedHandshake: too short, a key of low order, or a static key that is not canonical.
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
                    if not is_canonical_key(work.rs):
                        raise MalformedHandshake("the peer sent a second form of its public key, a number of 2^255 - 19 or more")
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
