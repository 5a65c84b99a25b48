"""HandshakeState: turns, and bad messages that change nothing."""

from __future__ import annotations

import pytest

from stcp_proxy.errors import (
    HandshakeNotAuthentic,
    MalformedHandshake,
)
from stcp_proxy.protocol.noise import HandshakeState
from stcp_proxy.protocol.patterns import Pattern
from stcp_proxy.protocol.wire import Suite

from .fixed import ALL_SUITES, INITIATOR, RESPONDER, flip, states


@ALL_SUITES
def test_messages_alternate(suite: Suite) -> None:
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


@ALL_SUITES
def test_a_bad_message_leaves_the_noise_state_as_it_was(suite: Suite) -> None:
    """Changed in every field, cut and lengthened: each is refused, and the good message is accepted afterwards."""
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


def test_a_bad_message_uses_up_no_nonce() -> None:
    """The third message of XX begins under the last key of the second. A bad message must not use up its nonce."""
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
