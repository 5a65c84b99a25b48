"""Handshakes of every suite, both roles: raw bytes, genuine messages that were changed, and messages of a hostile key holder.

Promises: only a HandshakeError refuses; keys come out of genuine messages alone, and are then those of the other side; after a
refusal the object takes no more input; bytes behind a message are kept as they came.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from stcp_fuzz.choices import Choices
from stcp_proxy.errors import HandshakeError
from stcp_proxy.protocol.certified_handshake import CertifiedInitiator, CertifiedResponder, Identity, Reply
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.established import Answer, Established
from stcp_proxy.protocol.handshake import Credentials, Initiator, Responder
from stcp_proxy.protocol.noise import HandshakeState, KeyPair
from stcp_proxy.protocol.prologue import first_message_size, framed, prologue
from stcp_proxy.protocol.responder_choice import ResponderChoice
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.suites import KEY_SUITES, PATTERNS, PSK_SUITES
from stcp_proxy.protocol.wire import Suite

CALLER, LISTENER, STRANGER = (KeyPair(Secret(bytes([number]) * 32)) for number in (1, 2, 3))
PSK: Final = Secret(b"\x04" * 32)
CERTIFIED: Final = Suite.HYBRID_CERTIFICATES
SUITES: Final = sorted(KEY_SUITES | PSK_SUITES | {CERTIFIED})
CREDENTIAL: Final = Credential((b"leaf", b"intermediate"), 1_900_000_000, b"signature").encode()


def one(data: bytes) -> None:
    """Run one input."""
    choices = Choices(data)
    suite, kind, of_responder = choices.pick(SUITES), choices.byte() % 3, choices.flag()
    first, second = _genuine(suite)
    genuine = first if of_responder else second
    if kind == 0:
        sent = choices.rest()
    elif kind == 1:
        sent = choices.changed(genuine)
    else:
        sent = _hostile(suite, choices) if of_responder else choices.changed(genuine)
    if of_responder:
        _feed(_choice() if choices.flag() else _responder(suite), sent, choices, genuine)
        _agree_about_size(sent)
    else:
        _initiator_reads(suite, sent, choices)


def _keys(suite: Suite, mine: KeyPair) -> Credentials:
    return Credentials(static=mine if suite in KEY_SUITES else None, psk=PSK if suite in PSK_SUITES else None)


def _accept(credential: Credential, static: bytes) -> object:
    return credential, static


def _initiator(suite: Suite) -> Initiator | CertifiedInitiator:
    if suite is CERTIFIED:
        return CertifiedInitiator(Identity(CALLER, CREDENTIAL), verify=_accept)
    return Initiator(suite, _keys(suite, CALLER), remote_static=LISTENER.public if suite in KEY_SUITES else None)


def _responder(suite: Suite) -> Responder | CertifiedResponder:
    if suite is CERTIFIED:
        return CertifiedResponder(Identity(LISTENER, CREDENTIAL), verify=_accept)
    return Responder({suite}, _keys(suite, LISTENER), allowed={CALLER.public})


def _choice() -> ResponderChoice:
    return ResponderChoice({suite: functools.partial(_responder, suite) for suite in SUITES})


@functools.cache
def _genuine(suite: Suite) -> tuple[bytes, bytes]:
    """Message 1, and a message 2 that answers another message 1."""
    first = _initiator(suite).message_1()
    answer = _responder(suite).receive(first)
    assert answer is not None
    return first, answer.reply  # type: ignore[union-attr]


def _hostile(suite: Suite, choices: Choices) -> bytes:
    """A message 1 that is to be refused: it has a payload, or comes from a key that is not allowed."""
    static = choices.pick([CALLER, STRANGER])
    state = HandshakeState(
        PATTERNS[suite],
        initiator=True,
        prologue=prologue(suite),
        static=static if suite in KEY_SUITES or suite is CERTIFIED else None,
        psk=PSK if suite in PSK_SUITES else None,
        remote_static=LISTENER.public if suite in KEY_SUITES else None,
    )
    payload = choices.take(choices.byte() % 32)
    return prologue(suite) + framed(state.write_message(payload)) + choices.take(choices.byte() % 64)


def _feed(side: Any, sent: bytes, choices: Choices, genuine: bytes) -> None:
    try:
        fed = b""
        for piece in choices.pieces(sent):
            fed += piece
            result = side.receive(piece)
            if isinstance(result, Reply):
                _third_message(side, choices)
                return
            if result is not None:
                assert isinstance(result, Answer)
                assert result.established.suite in SUITES
                assert fed.endswith(result.established.rest)
                return
    except HandshakeError:
        _refuses_all(side)


def _third_message(side: Any, choices: Choices) -> None:
    """Message 3 cannot be made without the keys of message 2: these bytes are noise."""
    try:
        for piece in choices.pieces(choices.rest()):
            assert side.receive(piece) is None
    except HandshakeError:
        _refuses_all(side)


def _initiator_reads(suite: Suite, sent: bytes, choices: Choices) -> None:
    """A message 2 that belongs to our message 1, changed or not; or anything."""
    side = _initiator(suite)
    first = side.message_1()
    if choices.flag():
        answer = _responder(suite).receive(first)
        assert answer is not None
        genuine = answer.reply  # type: ignore[union-attr]
        sent = choices.changed(genuine) + choices.take(8)
    else:
        answer, genuine = None, b""
    try:
        fed = b""
        for piece in choices.pieces(sent):
            fed += piece
            found = side.receive(piece)
            if found is None:
                continue
            assert genuine, "keys came out of a message that was made for another handshake"
            assert sent.startswith(genuine)
            established = found.established if isinstance(found, Answer) else found
            assert isinstance(established, Established)
            assert fed.endswith(established.rest)
            if isinstance(answer, Answer):
                assert established.send_key == answer.established.receive_key
            return
    except HandshakeError:
        _refuses_all(side)


def _refuses_all(side: Any) -> None:
    if isinstance(side, ResponderChoice):
        return
    try:
        side.receive(b"x")
    except RuntimeError:
        return
    raise AssertionError("a handshake that was refused takes more input")


def _agree_about_size(sent: bytes) -> None:
    """The lobby finds the end of the first message without the responder."""
    try:
        size = first_message_size(sent, SUITES)
    except HandshakeError:
        return
    assert size is None or 8 < size <= 2 + 8 + 65535
