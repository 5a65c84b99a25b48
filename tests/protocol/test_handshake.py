"""Both sides of a handshake agree, however their bytes arrive."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import (
    SuiteRefused,
)
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder, State
from stcp_proxy.protocol.prologue import prologue
from stcp_proxy.protocol.suites import KEY_SUITES, PSK_SUITES
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, Suite

from .fixed import ALL_SUITES, INITIATOR, PSK, RESPONDER, complete, credentials, make_initiator, make_responder, shake

HEAD = 8
"""Bytes of the prologue and of the length field of message 1."""


@ALL_SUITES
def test_both_sides_agree(suite: Suite) -> None:
    initiator, responder = complete(suite)
    assert initiator.send_key == responder.receive_key
    assert initiator.receive_key == responder.send_key
    assert initiator.send_key != initiator.receive_key
    assert initiator.handshake_hash == responder.handshake_hash
    assert initiator.channel_id == responder.channel_id == initiator.handshake_hash[:8].hex()
    assert (initiator.suite, responder.suite) == (suite, suite)
    expected = (RESPONDER.public, INITIATOR.public) if suite in KEY_SUITES else (None, None)
    assert (initiator.peer, responder.peer) == expected


@ALL_SUITES
def test_two_handshakes_have_different_keys(suite: Suite) -> None:
    (one, _), (two, _) = complete(suite), complete(suite)
    assert one.send_key != two.send_key
    assert one.receive_key != two.receive_key
    assert one.channel_id != two.channel_id


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
    fed = 0
    for start, end in pieces(raw, cuts):
        assert answer is None
        answer = responder.receive(raw[start:end])
        fed = end
        if answer is not None:
            break
    assert answer is not None
    assert answer.established.rest == raw[HEAD + MESSAGE_1_LEN[suite] : fed]


def pieces(raw: bytes, cuts: list[int]) -> list[tuple[int, int]]:
    edges = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
    return list(itertools.pairwise(edges))


@ALL_SUITES
def test_credentials_that_do_not_fit(suite: Suite) -> None:
    right = credentials(suite, INITIATOR)
    every = (Credentials(), Credentials(static=INITIATOR), Credentials(psk=PSK), Credentials(static=INITIATOR, psk=PSK))
    for wrong in every:
        if (wrong.static, wrong.psk) != (right.static, right.psk):
            with pytest.raises(ValueError, match="credentials"):
                Initiator(suite, wrong, remote_static=RESPONDER.public)


def test_a_responder_refuses_suites_that_its_credentials_cannot_speak() -> None:
    """The policy may name all suites. A peer's wish for one of them never becomes an internal error."""
    everything = set(Suite)
    for mine, others in (
        (Credentials(static=RESPONDER), everything - (KEY_SUITES - PSK_SUITES)),
        (Credentials(psk=PSK), everything - (PSK_SUITES - KEY_SUITES)),
        (Credentials(static=RESPONDER, psk=PSK), everything - (KEY_SUITES & PSK_SUITES)),
    ):
        for suite in others:
            with pytest.raises(SuiteRefused):
                Responder(everything, mine).receive(prologue(suite))


def test_suites_with_keys_need_the_responders_public_key() -> None:
    for suite in KEY_SUITES:
        with pytest.raises(ValueError, match="static key"):
            Initiator(suite, credentials(suite, INITIATOR))
