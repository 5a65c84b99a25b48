"""The handshake of suites 1 to 4 and 6: one Noise round trip behind a prologue (PROTOCOL.md section 1).

    initiator -> responder   "STCP" ‖ version ‖ suite ‖ length (u16) ‖ Noise message 1
    responder -> initiator                              length (u16) ‖ Noise message 2

Both sides take bytes as they come and return a result, raise an exception, or return None while bytes are missing.

Invariants:
- The suite fixes the length of each message, so at most one message is held.
- After an exception the object refuses all input.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from stcp_proxy.errors import HandshakeNotAuthentic, MalformedHandshake, UnknownPeer
from stcp_proxy.protocol.established import Answer as Answer
from stcp_proxy.protocol.established import Established as Established
from stcp_proxy.protocol.noise import SYSTEM_ENTROPY, Entropy, HandshakeState, KeyPair
from stcp_proxy.protocol.prologue import framed, prologue, read_prologue, take_message
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.suites import KEY_SUITES, PATTERNS, PSK_SUITES
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, MESSAGE_2_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN, Suite

MAX_RING: Final = 4
"""Most key pairs that a side has at a time. A stranger's message 1 is tried with each key, so this bounds its cost."""


class State(enum.Enum):
    """Progress of one side's handshake."""

    START = enum.auto()
    WAIT = enum.auto()
    DONE = enum.auto()
    ERROR = enum.auto()


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys of one side: a static key pair, a shared secret, or both.

    Attributes:
        static: this side's key pair (suites 1, 2 and 6).
        psk: the shared secret (suites 3, 4 and 6).
        further: key pairs for which a responder answers too, while one replaces the other; at most `MAX_RING` with `static`.
    """

    static: KeyPair | None = None
    psk: Secret | None = None
    further: tuple[KeyPair, ...] = ()

    @property
    def ring(self) -> tuple[KeyPair | None, ...]:
        """The key pairs to try in turn. Without key pairs, a single None."""
        return (self.static, *self.further)

    def fit(self, suite: Suite) -> bool:
        """Whether these are exactly the keys that `suite` needs. A side with a key pair and a secret speaks suite 6 alone."""
        if suite not in KEY_SUITES | PSK_SUITES:
            return False
        return (suite in KEY_SUITES) == (self.static is not None) and (suite in PSK_SUITES) == (self.psk is not None)

    def check(self, suite: Suite) -> None:
        """Raises ValueError unless these credentials fit `suite`."""
        if self.psk is None and self.static is None:
            raise ValueError("credentials are a static key pair, a shared secret, or both")
        if len(self.further) >= (MAX_RING if self.static is not None else 1):
            raise ValueError(f"credentials are at most {MAX_RING} key pairs, or one shared secret")
        if not self.fit(suite):
            raise ValueError(f"suite {suite.name} and the credentials disagree")


class Initiator:
    """The connecting side.

    Args:
        suite: the suite to use. Nothing is negotiated.
        credentials: this side's keys.
        remote_static: the responder's public key (suites 1, 2 and 6).
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
        """Everything that the initiator sends before the responder answers."""
        if self.state is not State.START:
            raise RuntimeError("message 1 is written once")
        message = self._noise.write_message()
        self.state = State.WAIT
        return prologue(self._suite) + framed(message)

    def receive(self, data: bytes) -> Established | None:
        """Process bytes from the responder.

        Returns:
            The established keys, or None while message 2 is incomplete.

        Raises:
            HandshakeError: the handshake failed. Close the wire leg.
        """
        _require_wait(self.state)
        self._buffer += data
        length = MESSAGE_2_LEN[self._suite]
        try:
            message = take_message(self._buffer, 0, length, length)
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
        suites: suites that the configuration allows. Those that `credentials` do not fit are refused like all others.
        credentials: this side's keys.
        allowed: public keys that may connect, 32 bytes each, or a function that decides (suites 1, 2 and 6).
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
        self._suites = frozenset(suite for suite in suites if credentials.fit(suite))
        self._credentials = credentials
        self._allowed = allowed if callable(allowed) else allowed.__contains__
        self._entropy = entropy
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Answer | None:
        """Process bytes from the initiator.

        Returns:
            The reply with the established keys, or None while message 1 is incomplete. Message 1 may be a replay: do nothing for
            the peer until its first frame has authenticated.

        Raises:
            HandshakeError: the handshake failed. Close the wire leg without a reply.
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
        suite = read_prologue(self._buffer, self._suites)
        if suite is None:
            return None
        length = MESSAGE_1_LEN[suite]
        message = take_message(self._buffer, PROLOGUE_LEN, length, length)
        if message is None:
            return None
        own, state = self._read_message_1(suite, message)
        peer = state.remote_static
        if peer is not None and not self._allowed(peer):
            raise UnknownPeer(peer)
        reply = framed(state.write_message())
        receive, send = state.split()
        rest = bytes(self._buffer[PROLOGUE_LEN + MESSAGE_LENGTH_LEN + len(message) :])
        return Answer(reply, Established(suite, send, receive, state.handshake_hash, peer, rest, own))

    def _read_message_1(self, suite: Suite, message: bytes) -> tuple[bytes | None, HandshakeState]:
        """Find the key pair that message 1 is for. Returns its public key and the state after the message.

        The message does not name the key: the pattern mixes it into the transcript beforehand. So the keys are tried in turn.
        A wrong one fails at the first tag, after one X25519 computation.
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
            if suite in KEY_SUITES
            else "check that both sides have the same shared secret",
        )


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


def _require_wait(state: State) -> None:
    if state is not State.WAIT:
        raise RuntimeError(f"no input is accepted in state {state.name}")


def _require_empty(payload: bytes) -> None:
    if payload:
        raise MalformedHandshake("a handshake message carries a payload, which version 1 does not have")
