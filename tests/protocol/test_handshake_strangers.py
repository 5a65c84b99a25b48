"""What a stranger may send: other protocols, junk, replays, wrong keys, changed suites."""

from __future__ import annotations

import contextlib

import pytest
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
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder
from stcp_proxy.protocol.prologue import prologue
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.suites import KEY_SUITES, PSK_SUITES
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, MESSAGE_2_LEN, FrameType, Suite

from .fixed import (
    ALL_SUITES,
    INITIATOR,
    ONE_ROUND_TRIP,
    RESPONDER,
    STRANGER,
    WITH_KEYS,
    credentials,
    each_suite,
    flip,
    make_initiator,
    make_responder,
    shake,
    states,
)

HEAD = 8
"""Bytes of the prologue and of the length field of message 1."""


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


@pytest.mark.parametrize("number", [0, 2, 3, 4, 5, 6, 7, 255])
def test_suites_that_are_not_allowed(number: int) -> None:
    """The sixth byte is enough: no length and no key is examined."""
    with pytest.raises(SuiteRefused):
        make_responder(Suite.HYBRID_KEYS).receive(b"STCP\x01" + bytes([number]))


@ALL_SUITES
@pytest.mark.parametrize("off", [-1, 1, -(1 << 16), 1 << 16])
def test_lengths_that_are_not_the_suites(suite: Suite, off: int) -> None:
    """The length field is enough: no byte of the message is stored."""
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
    """Junk is refused or needs more bytes. Nothing else is raised, and no handshake succeeds."""
    for prefix in (b"", b"STCP", b"STCP\x01\x02\x00\x60"):
        responder = make_responder(Suite.CLASSIC_KEYS)
        with contextlib.suppress(HandshakeError):
            assert responder.receive(prefix + junk) is None
    initiator = make_initiator(Suite.CLASSIC_KEYS)
    initiator.message_1()
    with contextlib.suppress(HandshakeError):
        assert initiator.receive(junk) is None


@WITH_KEYS
def test_an_unknown_key_is_refused(suite: Suite) -> None:
    message = make_initiator(suite, mine=STRANGER).message_1()
    with pytest.raises(UnknownPeer) as caught:
        make_responder(suite).receive(message)
    assert caught.value.peer == STRANGER.public


@WITH_KEYS
def test_access_rules_may_be_a_function(suite: Suite) -> None:
    asked: list[bytes] = []

    def allowed(peer: bytes) -> bool:
        asked.append(peer)
        return True

    responder = Responder({suite}, credentials(suite, RESPONDER), allowed=allowed)
    assert responder.receive(make_initiator(suite).message_1()) is not None
    assert asked == [INITIATOR.public]


@WITH_KEYS
def test_without_a_rule_no_key_is_allowed(suite: Suite) -> None:
    with pytest.raises(UnknownPeer):
        Responder({suite}, credentials(suite, RESPONDER)).receive(make_initiator(suite).message_1())


@WITH_KEYS
def test_the_wrong_responder_cannot_read_message_1(suite: Suite) -> None:
    with pytest.raises(HandshakeNotAuthentic, match="public key"):
        make_responder(suite, mine=STRANGER).receive(make_initiator(suite).message_1())


@each_suite(PSK_SUITES - KEY_SUITES)
def test_the_wrong_secret(suite: Suite) -> None:
    message = Initiator(suite, Credentials(psk=Secret(bytes(32)))).message_1()
    with pytest.raises(HandshakeNotAuthentic, match="secret"):
        make_responder(suite).receive(message)


@ALL_SUITES
def test_a_reply_to_another_initiator_is_refused(suite: Suite) -> None:
    initiator, _, _ = shake(suite)
    _, _, other = shake(suite)
    with pytest.raises(HandshakeError):
        initiator.receive(other.reply)


@ALL_SUITES
def test_message_1_sent_back_is_refused(suite: Suite) -> None:
    initiator = make_initiator(suite)
    message_1 = initiator.message_1()
    with pytest.raises(HandshakeError):
        initiator.receive(message_1)


@ALL_SUITES
def test_a_replayed_message_1_opens_nothing(suite: Suite) -> None:
    """The responder cannot recognise a replay and answers it. The recorded OPEN that follows does not authenticate."""
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
    """Each of the six bytes is authenticated: the first message fails after any change."""
    initiator, responder = states(suite, responder_prologue=flip(prologue(suite), at))
    with pytest.raises(HandshakeNotAuthentic):
        responder.read_message(initiator.write_message())


@pytest.mark.parametrize("claimed", ONE_ROUND_TRIP, ids=lambda suite: f"claimed {suite.name.lower()}")
@ALL_SUITES
def test_a_suite_that_is_changed_on_the_way(suite: Suite, claimed: Suite) -> None:
    """A responder allows both suites: a changed suite number never becomes a connection."""
    if claimed is suite:
        return
    noise = make_initiator(suite).message_1()[HEAD:]
    for length in (MESSAGE_1_LEN[suite], MESSAGE_1_LEN[claimed]):
        responder = Responder({suite, claimed}, credentials(suite, RESPONDER), allowed={INITIATOR.public})
        with pytest.raises(HandshakeError):
            responder.receive(prologue(claimed) + length.to_bytes(2, "big") + noise.ljust(length, b"\0")[:length])
