"""The STCP handshake: one Noise round trip in a thin frame (PROTOCOL.md section 1).

    initiator -> responder   "STCP" ‖ version ‖ suite ‖ length (u16) ‖ Noise message 1
    responder -> initiator                              length (u16) ‖ Noise message 2

Both sides are fed bytes as they come and answer with a result, an exception, or None for "need more". Every length is known from
the suite before anything is buffered, so no more than one message is ever held. After an exception the object refuses all input.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import HandshakeNotAuthentic, MalformedHandshake, NotStcp, SuiteRefused, UnknownPeer, VersionRefused
from stcp_proxy.protocol import noise
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY, Entropy, HandshakeState, KeyPair, Pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import (
    CHANNEL_ID_LEN,
    MAGIC,
    MESSAGE_1_LEN,
    MESSAGE_2_LEN,
    MESSAGE_LENGTH_LEN,
    PROLOGUE_LEN,
    VERSION,
    Suite,
)

PATTERNS: Final[dict[Suite, Pattern]] = {
    Suite.HYBRID_KEYS: noise.IK_HFS,
    Suite.CLASSIC_KEYS: noise.IK,
    Suite.HYBRID_PSK: noise.NN_HFS_PSK0,
    Suite.CLASSIC_PSK: noise.NN_PSK0,
}
PSK_SUITES: Final = frozenset({Suite.HYBRID_PSK, Suite.CLASSIC_PSK})
MAX_RING: Final = 4
"""Most key pairs that a side may have at a time: a stranger's message 1 is tried with each, so this bounds what it costs."""


class State(enum.Enum):
    """Where a side of the handshake stands."""

    START = enum.auto()
    WAIT = enum.auto()
    DONE = enum.auto()
    ERROR = enum.auto()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a side brings to the handshake: a static key pair, or a shared secret; never both.

    Attributes:
        static: this side's key pair (suites 1 and 2).
        psk: the shared secret (suites 3 and 4).
        further: key pairs for which a responder answers too, while one replaces the other; at most `MAX_RING` with `static`.
    """

    static: KeyPair | None = None
    psk: Secret | None = None
    further: tuple[KeyPair, ...] = ()

    @property
    def ring(self) -> tuple[KeyPair | None, ...]:
        """The key pairs to try in turn; a single None with a shared secret."""
        return (self.static, *self.further)

    def check(self, suite: Suite) -> None:
        """Raises ValueError unless these credentials fit `suite`."""
        if (self.psk is None) == (self.static is None):
            raise ValueError("credentials are a static key pair or a shared secret")
        if len(self.further) >= (MAX_RING if self.static is not None else 1):
            raise ValueError(f"credentials are at most {MAX_RING} key pairs, or one shared secret")
        if (suite in PSK_SUITES) != (self.psk is not None):
            raise ValueError(f"suite {suite.name} and the credentials disagree")


@dataclass(frozen=True, slots=True)
class Established:
    """A finished handshake.

    Attributes:
        suite: the suite in force.
        send_key: key of the direction from this side to the peer; its counter starts at 0.
        receive_key: key of the other direction.
        handshake_hash: the final transcript hash, 32 bytes.
        peer: the peer's static public key, 32 bytes; None with a shared secret, which names nobody.
        rest: bytes behind the last handshake message: the beginning of the frames.
        own: this side's static public key, by which the peer knows it; None with a shared secret.
    """

    suite: Suite
    send_key: Secret
    receive_key: Secret
    handshake_hash: bytes
    peer: bytes | None
    rest: bytes
    own: bytes | None = None

    @property
    def channel_id(self) -> str:
        """The connection's name in both sides' logs: 16 hex digits."""
        return self.handshake_hash[:CHANNEL_ID_LEN].hex()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a responder has after message 1: bytes to send, and the established keys."""

    reply: bytes
    established: Established


def prologue(suite: Suite) -> bytes:
    """The six bytes that open a connection and are the Noise prologue."""
    return MAGIC + bytes([VERSION, suite])


class Initiator:
    """The connecting side.

    Args:
        suite: what to speak; there is no negotiation.
        credentials: this side's key pair or the shared secret.
        remote_static: the responder's public key (suites 1 and 2).
        entropy: source of the ephemeral keys.
    """

    def __init__(
        self,
        suite: Suite,
        credentials: Credentials,
        *,
        remote_static: bytes | None = None,
        entropy: Entropy = SYSTEM_ENTROPY,
    ) -> None:
        self.state = State.START
        self._suite = suite
        self._own = None if credentials.static is None else credentials.static.public
        self._buffer = bytearray()
        self._noise = _noise(suite, credentials, initiator=True, remote_static=remote_static, entropy=entropy)

    def message_1(self) -> bytes:
        """Everything the initiator sends before the responder answers."""
        if self.state is not State.START:
            raise RuntimeError("message 1 is written once")
        message = self._noise.write_message()
        self.state = State.WAIT
        return prologue(self._suite) + _framed(message)

    def receive(self, data: bytes) -> Established | None:
        """Feed bytes from the responder.

        Returns:
            The established keys, or None while message 2 is incomplete.

        Raises:
            HandshakeError: the handshake has failed; the wire leg is to be closed.
        """
        _require_wait(self.state)
        self._buffer += data
        try:
            message = _take_message(self._buffer, 0, MESSAGE_2_LEN[self._suite])
            if message is None:
                return None
            payload = self._noise.read_message(message)
            _require_empty(payload)
        except Exception:
            self.state = State.ERROR
            raise
        self.state = State.DONE
        end = MESSAGE_LENGTH_LEN + len(message)
        send, receive = self._noise.split()
        return Established(
            self._suite,
            send,
            receive,
            self._noise.handshake_hash,
            self._noise.remote_static,
            bytes(self._buffer[end:]),
            self._own,
        )


class Responder:
    """The listening side.

    Args:
        suites: what this side's configuration allows; those that `credentials` cannot speak are refused like any other.
        credentials: this side's key pairs or the shared secret.
        allowed: public keys that may connect, 32 bytes each (suites 1 and 2).
        entropy: source of the ephemeral keys.
    """

    def __init__(
        self,
        suites: Collection[Suite],
        credentials: Credentials,
        *,
        allowed: Collection[bytes] | Callable[[bytes], bool] = (),
        entropy: Entropy = SYSTEM_ENTROPY,
    ) -> None:
        self.state = State.WAIT
        self._suites = sorted(suite for suite in suites if (suite in PSK_SUITES) == (credentials.psk is not None))
        self._credentials = credentials
        self._allowed = allowed if callable(allowed) else allowed.__contains__
        self._entropy = entropy
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Answer | None:
        """Feed bytes from the initiator.

        Returns:
            The reply with the established keys, or None while message 1 is incomplete. Message 1 may be a replay: nothing may be
            done on its behalf until the first frame has authenticated.

        Raises:
            HandshakeError: the handshake has failed; the wire leg is to be closed without a byte in reply.
        """
        _require_wait(self.state)
        self._buffer += data
        try:
            answer = self._answer()
        except Exception:
            self.state = State.ERROR
            raise
        if answer is not None:
            self.state = State.DONE
        return answer

    def _answer(self) -> Answer | None:
        suite = self._read_prologue()
        if suite is None:
            return None
        message = _take_message(self._buffer, PROLOGUE_LEN, MESSAGE_1_LEN[suite])
        if message is None:
            return None
        own, state = self._read_message_1(suite, message)
        peer = state.remote_static
        if peer is not None and not self._allowed(peer):
            raise UnknownPeer(peer)
        reply = _framed(state.write_message())
        receive, send = state.split()
        rest = bytes(self._buffer[PROLOGUE_LEN + MESSAGE_LENGTH_LEN + len(message) :])
        return Answer(reply, Established(suite, send, receive, state.handshake_hash, peer, rest, own))

    def _read_message_1(self, suite: Suite, message: bytes) -> tuple[bytes | None, HandshakeState]:
        """The state behind message 1, and the public key to which it is addressed.

        The pattern mixes the responder's static key into the transcript before the message, so the message does not say which of
        several it means: they are tried in turn. A wrong one fails at the first tag, behind one X25519.
        """
        self._credentials.check(suite)
        for static in self._credentials.ring:
            credentials = Credentials(static, self._credentials.psk)
            state = _noise(suite, credentials, initiator=False, remote_static=None, entropy=self._entropy)
            try:
                payload = state.read_message(message)
            except HandshakeNotAuthentic:
                continue
            _require_empty(payload)
            return (None if static is None else static.public), state
        raise HandshakeNotAuthentic(
            "the first message did not authenticate",
            remedy="check that the peer has this side's public key and suite"
            if suite not in PSK_SUITES
            else "check that both sides have the same shared secret",
        )

    def _read_prologue(self) -> Suite | None:
        head = bytes(self._buffer[:PROLOGUE_LEN])
        if head[: len(MAGIC)] != MAGIC[: len(head)]:
            raise NotStcp(
                f"the first bytes are not STCP's{_guess(head)}", remedy="point only `stcp-proxy connect` at this address"
            )
        if len(head) > len(MAGIC) and head[len(MAGIC)] != VERSION:
            raise VersionRefused(
                f"the peer speaks version {head[len(MAGIC)]} of STCP, this side version {VERSION}",
                remedy="run the same release on both sides",
            )
        if len(head) < PROLOGUE_LEN:
            return None
        number = head[PROLOGUE_LEN - 1]
        if number not in self._suites:
            name = Suite(number).name.lower() if number in set(Suite) else "unknown"
            allowed = ", ".join(str(int(s)) for s in self._suites)
            raise SuiteRefused(
                f"the peer uses suite {number} ({name}), this side allows {allowed}",
                remedy="give both sides the same kind of key and the same --suite",
            )
        return Suite(number)


def _noise(
    suite: Suite, credentials: Credentials, *, initiator: bool, remote_static: bytes | None, entropy: Entropy
) -> HandshakeState:
    credentials.check(suite)
    return HandshakeState(
        PATTERNS[suite],
        initiator=initiator,
        prologue=prologue(suite),
        static=credentials.static,
        psk=credentials.psk,
        remote_static=remote_static,
        entropy=entropy,
    )


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(MESSAGE_LENGTH_LEN, "big") + message


def _take_message(buffer: bytearray, at: int, expected: int) -> bytes | None:
    """The message behind its length field at `at`, or None while it is incomplete. The length must be the suite's own."""
    start = at + MESSAGE_LENGTH_LEN
    if len(buffer) < start:
        return None
    length = int.from_bytes(buffer[at:start], "big")
    if length != expected:
        raise MalformedHandshake(f"a handshake message of {length} bytes where the suite has {expected}")
    if len(buffer) < start + length:
        return None
    return bytes(buffer[start : start + length])


def _require_wait(state: State) -> None:
    if state is not State.WAIT:
        raise RuntimeError(f"no input is taken in state {state.name}")


def _require_empty(payload: bytes) -> None:
    if payload:
        raise MalformedHandshake("a handshake message carries a payload, which version 1 does not have")


def _guess(head: bytes) -> str:
    if head[:1] == b"\x16":
        return " (it looks like TLS)"
    if head[:4] in (b"GET ", b"POST", b"HEAD", b"PUT ", b"PRI "):
        return " (it looks like HTTP)"
    return ""
