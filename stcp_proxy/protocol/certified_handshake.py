"""The handshake of suite 5: three Noise messages, and a credential from each side (PROTOCOL.md section 8).

    initiator -> responder   prologue ‖ length (u16) ‖ message 1
    responder -> initiator              length (u16) ‖ message 2, with the responder's credential
    initiator -> responder              length (u16) ‖ message 3, with the initiator's credential

Invariants:
- A side hands out no keys before `verify` has accepted the peer's credential. The initiator sends message 3 only then.
- A length is checked before its message is waited for. At most one message is held.
- After an exception the object refuses all input.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from stcp_proxy.errors import MalformedHandshake
from stcp_proxy.protocol.credential import Credential, decode_credential
from stcp_proxy.protocol.established import Answer, Established
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY, Entropy, HandshakeState, KeyPair
from stcp_proxy.protocol.prologue import framed, prologue, read_prologue, take_message
from stcp_proxy.protocol.suites import PATTERNS
from stcp_proxy.protocol.wire import (
    MAX_CREDENTIAL,
    MESSAGE_1_LEN,
    MESSAGE_2_LEN,
    MESSAGE_3_LEN,
    MESSAGE_LENGTH_LEN,
    MIN_CREDENTIAL,
    PROLOGUE_LEN,
    Suite,
)

SUITE: Final = Suite.HYBRID_CERTIFICATES

Verify: TypeAlias = Callable[[Credential, bytes], object]
"""Decides whether a credential vouches for the peer.

It takes the credential and the peer's Noise static key (32 bytes). It returns what it verified, and raises a HandshakeError
to refuse.
"""


class Step(enum.Enum):
    """Next event of a side's handshake."""

    SEND_1 = enum.auto()
    RECEIVE_1 = enum.auto()
    RECEIVE_2 = enum.auto()
    RECEIVE_3 = enum.auto()
    DONE = enum.auto()
    ERROR = enum.auto()


@dataclass(frozen=True, slots=True)
class Identity:
    """The static key pair and the encoded credential that a side presents.

    Raises:
        MalformedHandshake: the credential does not fit the format.
    """

    static: KeyPair
    credential: bytes

    def __post_init__(self) -> None:
        decode_credential(self.credential)


@dataclass(frozen=True, slots=True)
class Reply:
    """Message 2, for the responder to send. The peer has proved nothing yet."""

    reply: bytes


class CertifiedInitiator:
    """The connecting side of suite 5.

    Args:
        identity: this side's key pair and credential.
        verify: decides about the responder's credential.
        entropy: source of the ephemeral keys.
    """

    def __init__(self, identity: Identity, *, verify: Verify, entropy: Entropy = SYSTEM_ENTROPY) -> None:
        self.step = Step.SEND_1
        self._identity = identity
        self._verify = verify
        self._buffer = bytearray()
        self._noise = _noise(identity, initiator=True, entropy=entropy)

    def message_1(self) -> bytes:
        """Everything that the initiator sends before the responder answers."""
        if self.step is not Step.SEND_1:
            raise RuntimeError("message 1 is written once")
        message = self._noise.write_message()
        self.step = Step.RECEIVE_2
        return prologue(SUITE) + framed(message)

    def receive(self, data: bytes) -> Answer | None:
        """Process bytes from the responder.

        Returns:
            Message 3 and the established keys, or None while message 2 is incomplete. OPEN may follow message 3 at once.

        Raises:
            HandshakeError: the handshake failed. Close the wire leg.
        """
        if self.step is not Step.RECEIVE_2:
            raise RuntimeError(f"no input is accepted in step {self.step.name}")
        self._buffer += data
        try:
            answer = self._read_message_2()
        except Exception:
            self.step = Step.ERROR
            raise
        if answer is not None:
            self.step = Step.DONE
        return answer

    def _read_message_2(self) -> Answer | None:
        taken = _take(self._buffer, 0, MESSAGE_2_LEN[SUITE])
        if taken is None:
            return None
        message, rest = taken
        encoded = self._noise.read_message(message)
        verified = _verified(self._noise, encoded, self._verify)
        reply = framed(self._noise.write_message(self._identity.credential))
        return Answer(reply, _established(self._noise, self._identity, rest, encoded, verified, initiator=True))


class CertifiedResponder:
    """The listening side of suite 5.

    Message 1 costs this side one key generation, two X25519 computations and one encapsulation, for a peer that has proved
    nothing.

    Args:
        identity: this side's key pair and credential.
        verify: decides about the initiator's credential.
        entropy: source of the ephemeral keys.
    """

    def __init__(self, identity: Identity, *, verify: Verify, entropy: Entropy = SYSTEM_ENTROPY) -> None:
        self.step = Step.RECEIVE_1
        self._identity = identity
        self._verify = verify
        self._buffer = bytearray()
        self._noise = _noise(identity, initiator=False, entropy=entropy)

    def receive(self, data: bytes) -> Reply | Established | None:
        """Process bytes from the initiator.

        Returns:
            Message 2 to send, then the established keys; None while a message is incomplete. Message 1 may be a replay: do
            nothing for the peer before the keys are there and its first frame authenticated.

        Raises:
            HandshakeError: the handshake failed. Close the wire leg without a reply.
        """
        if self.step not in (Step.RECEIVE_1, Step.RECEIVE_3):
            raise RuntimeError(f"no input is accepted in step {self.step.name}")
        self._buffer += data
        try:
            return self._read_message_1() if self.step is Step.RECEIVE_1 else self._read_message_3()
        except Exception:
            self.step = Step.ERROR
            raise

    def _read_message_1(self) -> Reply | None:
        if read_prologue(self._buffer, {SUITE}) is None:
            return None
        length = MESSAGE_1_LEN[SUITE]
        message = take_message(self._buffer, PROLOGUE_LEN, length, length)
        if message is None:
            return None
        if len(self._buffer) > PROLOGUE_LEN + MESSAGE_LENGTH_LEN + length:
            raise MalformedHandshake("bytes follow message 1 before message 2 is sent")
        if self._noise.read_message(message):
            raise MalformedHandshake("message 1 carries a payload, which version 1 does not have")
        reply = Reply(framed(self._noise.write_message(self._identity.credential)))
        self._buffer.clear()
        self.step = Step.RECEIVE_3
        return reply

    def _read_message_3(self) -> Established | None:
        taken = _take(self._buffer, 0, MESSAGE_3_LEN)
        if taken is None:
            return None
        message, rest = taken
        encoded = self._noise.read_message(message)
        verified = _verified(self._noise, encoded, self._verify)
        established = _established(self._noise, self._identity, rest, encoded, verified, initiator=False)
        self.step = Step.DONE
        return established


def _noise(identity: Identity, *, initiator: bool, entropy: Entropy) -> HandshakeState:
    return HandshakeState(PATTERNS[SUITE], initiator=initiator, prologue=prologue(SUITE), static=identity.static, entropy=entropy)


def _take(buffer: bytearray, at: int, empty: int) -> tuple[bytes, bytes] | None:
    """The message that carries a credential, and the bytes after it. `empty` is the message's length without payload."""
    message = take_message(buffer, at, empty + MIN_CREDENTIAL, empty + MAX_CREDENTIAL)
    if message is None:
        return None
    return message, bytes(buffer[at + MESSAGE_LENGTH_LEN + len(message) :])


def _verified(noise: HandshakeState, encoded: bytes, verify: Verify) -> object:
    """Let `verify` decide about the peer's credential and static key."""
    static = noise.remote_static
    if static is None:
        raise RuntimeError("the peer's static key comes before its credential")
    return verify(decode_credential(encoded), static)


def _established(
    noise: HandshakeState, identity: Identity, rest: bytes, credential: bytes, verified: object, *, initiator: bool
) -> Established:
    first, second = noise.split()
    send, receive = (first, second) if initiator else (second, first)
    return Established(
        SUITE,
        send,
        receive,
        noise.handshake_hash,
        noise.remote_static,
        rest,
        identity.static.public,
        credential=credential,
        verified=verified,
    )
