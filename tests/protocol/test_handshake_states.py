"""Each state of a handshake with each input, and each message with changed bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stcp_proxy.errors import (
    HandshakeError,
)
from stcp_proxy.protocol.handshake import Initiator, Responder, State
from stcp_proxy.protocol.wire import MESSAGE_2_LEN, Suite

from .fixed import ALL_SUITES, flip, make_initiator, make_responder, shake

HEAD = 8
"""Bytes of the prologue and of the length field of message 1."""


GOOD, PART, EMPTY, BAD, START = "good", "part", "empty", "bad", "message_1"

INITIATOR_TABLE = {
    # (state, input): (outcome, next state); a missing key means RuntimeError, and the state stays
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
    """An initiator in `state`, and the reply that it accepts in WAIT."""
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
