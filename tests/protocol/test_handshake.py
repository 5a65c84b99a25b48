"""The handshake: every state with every input, every way of feeding, and everything an outsider may try."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import (
    FrameNotAuthentic,
    HandshakeError,
    HandshakeNotAuthentic,
    MalformedHandshake,
    NotStcp,
    SuiteRefused,
    UnknownPeer,
    VersionRefused,
)
from stcp_proxy.protocol import wire
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import PATTERNS, PSK_SUITES, Credentials, Initiator, Responder, State, prologue
from stcp_proxy.protocol.noise import Entropy, HandshakeState, KeyPair, Pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, MESSAGE_2_LEN, FrameType, Suite

from .fixed import ALL_SUITES, INITIATOR, PSK, RESPONDER, STRANGER, complete, credentials, make_initiator, make_responder, shake

HEAD = 8
"""Prologue and length field of message 1."""


# -- sizes ---------------------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_specification() -> None:
    assert MESSAGE_1_LEN == {1: 1296, 2: 96, 3: 1248, 4: 48}
    assert MESSAGE_2_LEN == {1: 1152, 2: 48, 3: 1152, 4: 48}
    assert (wire.MAX_FRAME, wire.MAX_PLAINTEXT, wire.MIN_LENGTH, wire.MAX_LENGTH) == (65536, 65516, 16, 65532)
    assert (wire.HEADER_LEN, wire.TAG_LEN, wire.REKEY_INTERVAL) == (4, 16, 2**20)
    assert wire.MAX_TEXT == 256
    assert [int(kind) for kind in (FrameType.DATA, FrameType.FIN, FrameType.RESET)] == [0, 1, 2]
    assert [int(kind) for kind in (FrameType.OPEN, FrameType.ACCEPT, FrameType.REJECT)] == [3, 4, 5]
    assert [code.name for code in sorted(wire.Code)] == [
        "DENIED",
        "UNKNOWN_SERVICE",
        "TARGET_REFUSED",
        "TARGET_TIMED_OUT",
        "TARGET_UNREACHABLE",
        "OVER_LIMIT",
        "SHUTTING_DOWN",
        "PLAIN_RESET",
        "IDLE_TIMEOUT",
        "PROTOCOL_ERROR",
        "KEY_REVOKED",
        "INTERNAL_ERROR",
    ]
    assert sorted(wire.Code) == list(range(1, 13))


@ALL_SUITES
def test_messages_have_their_sizes(suite: Suite) -> None:
    _, message_1, answer = shake(suite)
    assert message_1[:HEAD] == b"STCP" + bytes([1, suite]) + MESSAGE_1_LEN[suite].to_bytes(2, "big")
    assert len(message_1) == HEAD + MESSAGE_1_LEN[suite]
    assert answer.reply[:2] == MESSAGE_2_LEN[suite].to_bytes(2, "big")
    assert len(answer.reply) == 2 + MESSAGE_2_LEN[suite]


# -- agreement -----------------------------------------------------------------------------------------------------------


@ALL_SUITES
def test_both_sides_agree(suite: Suite) -> None:
    initiator, responder = complete(suite)
    assert initiator.send_key == responder.receive_key
    assert initiator.receive_key == responder.send_key
    assert initiator.send_key != initiator.receive_key
    assert initiator.handshake_hash == responder.handshake_hash
    assert initiator.channel_id == responder.channel_id == initiator.handshake_hash[:8].hex()
    assert (initiator.suite, responder.suite) == (suite, suite)
    if suite in PSK_SUITES:
        assert (initiator.peer, responder.peer) == (None, None)
    else:
        assert (initiator.peer, responder.peer) == (RESPONDER.public, INITIATOR.public)


@ALL_SUITES
def test_no_two_handshakes_are_alike(suite: Suite) -> None:
    (one, _), (two, _) = complete(suite), complete(suite)
    assert one.send_key != two.send_key
    assert one.receive_key != two.receive_key
    assert one.channel_id != two.channel_id


# -- feeding -------------------------------------------------------------------------------------------------------------


@ALL_SUITES
@pytest.mark.parametrize("behind", [b"", b"\0", b"first frames" * 100])
def test_whole_with_trailing_bytes(suite: Suite, behind: bytes) -> None:
    initiator, message_1, _ = shake(suite)
    answer = make_responder(suite).receive(message_1 + behind)
    assert answer is not None
    assert answer.established.rest == behind
    established = initiator.receive(answer.reply + behind)
    assert established is not None
    assert established.rest == behind
    assert established.send_key == answer.established.receive_key


@ALL_SUITES
def test_byte_by_byte(suite: Suite) -> None:
    initiator = make_initiator(suite)
    responder = make_responder(suite)
    message_1 = initiator.message_1()
    for i in range(len(message_1) - 1):
        assert responder.receive(message_1[i : i + 1]) is None
        assert responder.state is State.WAIT
    answer = responder.receive(message_1[-1:])
    assert answer is not None
    for i in range(len(answer.reply) - 1):
        assert initiator.receive(answer.reply[i : i + 1]) is None
        assert initiator.state is State.WAIT
    established = initiator.receive(answer.reply[-1:])
    assert established is not None
    assert established.send_key == answer.established.receive_key


@given(
    st.sampled_from([Suite.CLASSIC_KEYS, Suite.CLASSIC_PSK]), st.lists(st.integers(0, 200), max_size=8), st.binary(max_size=50)
)
def test_cut_anywhere(suite: Suite, cuts: list[int], behind: bytes) -> None:
    initiator = make_initiator(suite)
    responder = make_responder(suite)
    raw = initiator.message_1() + behind
    answer = None
    given_to = 0
    for start, end in pieces(raw, cuts):
        assert answer is None
        answer = responder.receive(raw[start:end])
        given_to = end
        if answer is not None:
            break
    assert answer is not None
    assert answer.established.rest == raw[HEAD + MESSAGE_1_LEN[suite] : given_to]


def pieces(raw: bytes, cuts: list[int]) -> list[tuple[int, int]]:
    edges = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    return list(itertools.pairwise(edges))


# -- every state with every input ------------------------------------------------------------------------------------------

GOOD, PART, EMPTY, BAD, START = "good", "part", "empty", "bad", "message_1"

INITIATOR_TABLE = {
    # (state, input): (outcome, next state); STYLE: a missing key is the error, here RuntimeError, and the state stays
    (State.START, START): ("bytes", State.WAIT),
    (State.WAIT, EMPTY): (None, State.WAIT),
    (State.WAIT, PART): (None, State.WAIT),
    (State.WAIT, GOOD): ("established", State.DONE),
    (State.WAIT, BAD): (HandshakeError, State.ERROR),
}
RESPONDER_TABLE = {
    (State.WAIT, EMPTY): (None, State.WAIT),
    (State.WAIT, PART): (None, State.WAIT),
    (State.WAIT, GOOD): ("established", State.DONE),
    (State.WAIT, BAD): (HandshakeError, State.ERROR),
}


def variants(message: bytes) -> dict[str, bytes]:
    return {GOOD: message, PART: message[:-1], EMPTY: b"", BAD: message[:-1] + bytes([message[-1] ^ 1])}


def initiator_in(state: State, suite: Suite) -> tuple[Initiator, bytes]:
    """An initiator brought to `state`, and the reply that would be good."""
    initiator = make_initiator(suite)
    if state is State.START:
        return initiator, shake(suite)[2].reply
    message_1 = initiator.message_1()
    answer = make_responder(suite).receive(message_1)
    assert answer is not None
    if state is State.DONE:
        initiator.receive(answer.reply)
    elif state is State.ERROR:
        with pytest.raises(HandshakeError):
            initiator.receive(variants(answer.reply)[BAD])
    assert initiator.state is state
    return initiator, answer.reply


def responder_in(state: State, suite: Suite) -> tuple[Responder, bytes]:
    responder = make_responder(suite)
    message_1 = make_initiator(suite).message_1()
    if state is State.DONE:
        responder.receive(message_1)
    elif state is State.ERROR:
        with pytest.raises(HandshakeError):
            responder.receive(variants(message_1)[BAD])
    assert responder.state is state
    return responder, message_1


@ALL_SUITES
@pytest.mark.parametrize("what", [START, GOOD, PART, EMPTY, BAD])
@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_initiator_in_every_state_with_every_input(suite: Suite, state: State, what: str) -> None:
    initiator, reply = initiator_in(state, suite)

    def act() -> object:
        return initiator.message_1() if what == START else initiator.receive(variants(reply)[what])

    assert_outcome(act, *INITIATOR_TABLE.get((state, what), (RuntimeError, state)))
    assert initiator.state is INITIATOR_TABLE.get((state, what), (None, state))[1]


@ALL_SUITES
@pytest.mark.parametrize("what", [GOOD, PART, EMPTY, BAD])
@pytest.mark.parametrize("state", [State.WAIT, State.DONE, State.ERROR], ids=lambda state: state.name)
def test_responder_in_every_state_with_every_input(suite: Suite, state: State, what: str) -> None:
    responder, message_1 = responder_in(state, suite)
    assert_outcome(
        lambda: responder.receive(variants(message_1)[what]), *RESPONDER_TABLE.get((state, what), (RuntimeError, state))
    )
    assert responder.state is RESPONDER_TABLE.get((state, what), (None, state))[1]


def assert_outcome(act: Callable[[], object], outcome: object, _: State) -> None:
    if isinstance(outcome, type):
        with pytest.raises(outcome):
            act()
    else:
        assert (act() is None) == (outcome is None)


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name.lower())
def test_noise_speaks_in_turn(suite: Suite) -> None:
    initiator, responder = states(suite)
    with pytest.raises(RuntimeError, match="turn"):
        initiator.read_message(b"")
    with pytest.raises(RuntimeError, match="turn"):
        responder.write_message()
    with pytest.raises(RuntimeError, match="last"):
        initiator.split()
    responder.read_message(initiator.write_message())
    with pytest.raises(RuntimeError, match="turn"):
        initiator.write_message()
    initiator.read_message(responder.write_message())
    for state in (initiator, responder):
        for act in (state.write_message, lambda state=state: state.read_message(b"")):
            with pytest.raises(RuntimeError, match="finished"):
                act()


def states(
    suite: Suite, *, responder_prologue: bytes | None = None, initiator_prologue: bytes | None = None
) -> tuple[HandshakeState, HandshakeState]:
    """The Noise states of both sides, without STCP's framing."""
    keys = suite not in PSK_SUITES
    initiator = HandshakeState(
        PATTERNS[suite],
        initiator=True,
        prologue=prologue(suite) if initiator_prologue is None else initiator_prologue,
        static=INITIATOR if keys else None,
        remote_static=RESPONDER.public if keys else None,
        psk=None if keys else PSK,
    )
    responder = HandshakeState(
        PATTERNS[suite],
        initiator=False,
        prologue=prologue(suite) if responder_prologue is None else responder_prologue,
        static=RESPONDER if keys else None,
        psk=None if keys else PSK,
    )
    return initiator, responder


# -- a bad message changes nothing but the state ---------------------------------------------------------------------------


@ALL_SUITES
def test_a_bad_message_leaves_the_noise_state_as_it_was(suite: Suite) -> None:
    """Flipped in every field, cut and lengthened: refused each time, and the good one is still taken."""
    initiator, responder = states(suite)
    for reader, message in ((responder, initiator.write_message()), (initiator, None)):
        if message is None:
            message = responder.write_message()
        before = (reader.handshake_hash, reader.remote_static)
        bad = [flip(message, at) for at in {*range(0, len(message), 41), *range(32), *range(len(message) - 70, len(message))}]
        bad += [message[:-1], message[:31], b"", message + b"\0"]
        for wrong in bad:
            with pytest.raises((HandshakeNotAuthentic, MalformedHandshake)):
                reader.read_message(wrong)
            assert (reader.handshake_hash, reader.remote_static) == before
        assert reader.read_message(message) == b""
    assert initiator.handshake_hash == responder.handshake_hash
    assert initiator.split() == responder.split()


def test_a_bad_message_takes_no_nonce_of_a_key_that_goes_on() -> None:
    """STCP's patterns mix a new key into every message; XX goes on with the last one in its third."""
    pattern = Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
    initiator = HandshakeState(pattern, initiator=True, prologue=b"", static=INITIATOR)
    responder = HandshakeState(pattern, initiator=False, prologue=b"", static=RESPONDER)
    responder.read_message(initiator.write_message())
    initiator.read_message(responder.write_message())
    third = initiator.write_message(b"payload")
    for at in (0, 40, len(third) - 1):
        with pytest.raises(HandshakeNotAuthentic):
            responder.read_message(flip(third, at))
    assert responder.read_message(third) == b"payload"
    assert responder.remote_static == INITIATOR.public


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@ALL_SUITES
def test_every_flipped_byte_of_message_1_is_refused(suite: Suite) -> None:
    message = make_initiator(suite).message_1()
    step = 1 if len(message) < 200 else 13
    for at in [*range(HEAD), *range(HEAD, len(message), step)]:
        responder = make_responder(suite)
        with pytest.raises(HandshakeError):
            responder.receive(flip(message, at))
        assert responder.state is State.ERROR


@ALL_SUITES
def test_every_flipped_byte_of_message_2_is_refused(suite: Suite) -> None:
    length = MESSAGE_2_LEN[suite] + 2
    for at in range(0, length, 1 if length < 200 else 37):
        initiator, _, answer = shake(suite)
        with pytest.raises(HandshakeError):
            initiator.receive(flip(answer.reply, at))
        assert initiator.state is State.ERROR


# -- an outsider -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "hint"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not STCP"),
        (b"\0", "not STCP"),
        (b"stcp", "not STCP"),
        (b"STCp", "not STCP"),
    ],
)
def test_other_protocols(first: bytes, hint: str) -> None:
    responder = make_responder(Suite.HYBRID_KEYS)
    with pytest.raises(NotStcp, match=hint):
        responder.receive(first)


def test_the_first_wrong_byte_is_enough() -> None:
    for at in range(4):
        responder = make_responder(Suite.CLASSIC_KEYS)
        assert at == 0 or responder.receive(b"STCP"[:at]) is None
        with pytest.raises(NotStcp):
            responder.receive(b"\xff")


@pytest.mark.parametrize("version", [0, 2, 255])
def test_other_versions(version: int) -> None:
    with pytest.raises(VersionRefused, match=str(version)):
        make_responder(Suite.CLASSIC_KEYS).receive(b"STCP" + bytes([version]))


@pytest.mark.parametrize("number", [0, 2, 3, 4, 5, 255])
def test_suites_that_are_not_allowed(number: int) -> None:
    """Refused by the sixth byte, before any length or key is looked at."""
    with pytest.raises(SuiteRefused):
        make_responder(Suite.HYBRID_KEYS).receive(b"STCP\x01" + bytes([number]))


@ALL_SUITES
@pytest.mark.parametrize("off", [-1, 1, -(1 << 16), 1 << 16])
def test_lengths_that_are_not_the_suites(suite: Suite, off: int) -> None:
    """Refused by the length field, before a byte of the message is held."""
    length = min(max(MESSAGE_1_LEN[suite] + off, 0), 65535)
    with pytest.raises(MalformedHandshake):
        make_responder(suite).receive(prologue(suite) + length.to_bytes(2, "big"))
    length = min(max(MESSAGE_2_LEN[suite] + off, 0), 65535)
    initiator = make_initiator(suite)
    initiator.message_1()
    with pytest.raises(MalformedHandshake):
        initiator.receive(length.to_bytes(2, "big"))


@given(st.binary(max_size=3000))
def test_junk(junk: bytes) -> None:
    """Junk is refused or waited for; nothing else is raised, and nothing is ever established."""
    for prefix in (b"", b"STCP", b"STCP\x01\x02\x00\x60"):
        responder = make_responder(Suite.CLASSIC_KEYS)
        with contextlib.suppress(HandshakeError):
            assert responder.receive(prefix + junk) is None
    initiator = make_initiator(Suite.CLASSIC_KEYS)
    initiator.message_1()
    with contextlib.suppress(HandshakeError):
        assert initiator.receive(junk) is None


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
def test_a_stranger_is_refused_by_his_key(suite: Suite) -> None:
    message = make_initiator(suite, mine=STRANGER).message_1()
    with pytest.raises(UnknownPeer) as caught:
        make_responder(suite).receive(message)
    assert caught.value.peer == STRANGER.public


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
def test_access_rules_may_be_a_function(suite: Suite) -> None:
    asked: list[bytes] = []

    def allowed(peer: bytes) -> bool:
        asked.append(peer)
        return True

    responder = Responder({suite}, Credentials(static=RESPONDER), allowed=allowed)
    assert responder.receive(make_initiator(suite).message_1()) is not None
    assert asked == [INITIATOR.public]


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
def test_nobody_may_connect_unless_allowed(suite: Suite) -> None:
    with pytest.raises(UnknownPeer):
        Responder({suite}, Credentials(static=RESPONDER)).receive(make_initiator(suite).message_1())


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
def test_the_wrong_responder_cannot_read_message_1(suite: Suite) -> None:
    with pytest.raises(HandshakeNotAuthentic, match="public key"):
        make_responder(suite, mine=STRANGER).receive(make_initiator(suite).message_1())


@pytest.mark.parametrize("suite", sorted(PSK_SUITES))
def test_the_wrong_secret(suite: Suite) -> None:
    message = Initiator(suite, Credentials(psk=Secret(bytes(32)))).message_1()
    with pytest.raises(HandshakeNotAuthentic, match="secret"):
        make_responder(suite).receive(message)


@ALL_SUITES
def test_a_reply_to_another_is_refused(suite: Suite) -> None:
    initiator, _, _ = shake(suite)
    _, _, other = shake(suite)
    with pytest.raises(HandshakeError):
        initiator.receive(other.reply)


@ALL_SUITES
def test_message_1_sent_back_is_no_reply(suite: Suite) -> None:
    initiator = make_initiator(suite)
    message_1 = initiator.message_1()
    with pytest.raises(HandshakeError):
        initiator.receive(message_1)


@ALL_SUITES
def test_a_replayed_message_1_opens_nothing(suite: Suite) -> None:
    """The responder answers a replay, for it cannot know; but the recorded OPEN behind it does not authenticate."""
    initiator, message_1, answer = shake(suite)
    established = initiator.receive(answer.reply)
    assert established is not None
    recorded = message_1 + Sealer(established.send_key).seal(FrameType.OPEN)
    again = make_responder(suite).receive(recorded)
    assert again is not None
    assert again.established.rest == recorded[len(message_1) :]
    with pytest.raises(FrameNotAuthentic):
        Opener(again.established.receive_key).open(again.established.rest)


@ALL_SUITES
@pytest.mark.parametrize("at", range(6))
def test_prologues_that_differ(suite: Suite, at: int) -> None:
    """Each of the six bytes is authenticated: who changes one on the way is found out with the first message."""
    initiator, responder = states(suite, responder_prologue=flip(prologue(suite), at))
    with pytest.raises(HandshakeNotAuthentic):
        responder.read_message(initiator.write_message())


@pytest.mark.parametrize("claimed", list(Suite), ids=lambda suite: f"claimed {suite.name.lower()}")
@ALL_SUITES
def test_a_suite_that_is_changed_on_the_way(suite: Suite, claimed: Suite) -> None:
    """A responder that allows everything it can: another suite in the header never becomes a connection."""
    if claimed is suite:
        return
    noise = make_initiator(suite).message_1()[HEAD:]
    for length in (MESSAGE_1_LEN[suite], MESSAGE_1_LEN[claimed]):
        responder = Responder({suite, claimed}, credentials(suite, RESPONDER), allowed={INITIATOR.public})
        with pytest.raises(HandshakeError):
            responder.receive(prologue(claimed) + length.to_bytes(2, "big") + noise.ljust(length, b"\0")[:length])


# -- keys that are none ------------------------------------------------------------------------------------------------------

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
    """A key pair that sends a point of low order, and knows what comes out of it."""

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
    """All that the attacker cannot compute is zero, so everything authenticates: only the check of the result stops it."""
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
@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
def test_a_low_order_static_key(suite: Suite, point: bytes) -> None:
    """Even where an access rule names it."""
    responder = Responder({suite}, Credentials(static=RESPONDER), allowed=lambda _: True)
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


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.HYBRID_PSK])
def test_a_kem_key_that_is_none(suite: Suite) -> None:
    responder = make_responder(suite)
    with pytest.raises(MalformedHandshake, match="ML-KEM"):
        responder.receive(make_initiator(suite, entropy=BadKem()).message_1())
    assert responder.state is State.ERROR


class WrongKem(Entropy):
    """Encapsulates to nobody: a ciphertext of random bytes, which ML-KEM rejects implicitly."""

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        return os.urandom(32), os.urandom(wire.KEM_CIPHERTEXT_LEN)


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.HYBRID_PSK])
def test_a_kem_ciphertext_that_is_none(suite: Suite) -> None:
    initiator = make_initiator(suite)
    answer = make_responder(suite, entropy=WrongKem()).receive(initiator.message_1())
    assert answer is not None
    with pytest.raises(HandshakeNotAuthentic):
        initiator.receive(answer.reply)


# -- our own mistakes --------------------------------------------------------------------------------------------------------


@ALL_SUITES
def test_credentials_that_do_not_fit(suite: Suite) -> None:
    wrong = Credentials(static=INITIATOR) if suite in PSK_SUITES else Credentials(psk=PSK)
    for bad in (wrong, Credentials(), Credentials(static=INITIATOR, psk=PSK)):
        with pytest.raises(ValueError, match="credentials"):
            Initiator(suite, bad, remote_static=RESPONDER.public)


def test_a_responder_refuses_suites_that_its_credentials_cannot_speak() -> None:
    """The policy may name all suites; what a peer asks for is never our error."""
    everything = set(Suite)
    for mine, others in (
        (Credentials(static=RESPONDER), PSK_SUITES),
        (Credentials(psk=PSK), everything - PSK_SUITES),
    ):
        for suite in others:
            with pytest.raises(SuiteRefused):
                Responder(everything, mine).receive(prologue(suite))


def test_keys_suites_need_the_responders_key() -> None:
    for suite in (Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS):
        with pytest.raises(ValueError, match="static key"):
            Initiator(suite, Credentials(static=INITIATOR))
