"""Secrets are never in a repr, a text or an exception, and do not leave by a side door."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import traceback
from collections.abc import Iterator

import pytest

from stcp_proxy.errors import FrameError, HandshakeError
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FrameType, Suite
from stcp_proxy.relay.engine import DirectionKey

from .fixed import ALL_SUITES, PSK, complete, make_initiator, make_responder, shake

RAW = bytes(range(100, 132))


def spellings(raw: bytes) -> Iterator[str]:
    """How bytes could stand in a text."""
    yield raw.hex()
    yield repr(raw)[2:-1]
    yield str(list(raw))[1:-1]
    yield raw.decode("latin-1")


def assert_hidden(raw: bytes, *texts: str) -> None:
    for text in texts:
        for spelling in spellings(raw):
            assert spelling not in text
            assert spelling[:12] not in text


def test_the_type_itself() -> None:
    secret = Secret(RAW)
    assert_hidden(RAW, repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", "%s" % secret)  # noqa: UP031
    assert secret.reveal() == RAW
    assert secret == Secret(bytes(RAW))
    assert secret != Secret(bytes(32))
    assert secret != RAW


@pytest.mark.parametrize("raw", [b"", RAW[:31], RAW + b"\0"])
def test_a_wrong_length_does_not_show_the_bytes(raw: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes") as caught:
        Secret(raw)
    assert_hidden(RAW[:31], str(caught.value), repr(caught.value))


def test_side_doors() -> None:
    secret = Secret(RAW)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError) as caught:
            leave(secret)
        assert_hidden(RAW, str(caught.value))
    with pytest.raises(TypeError):
        dataclasses.asdict(DirectionKey(secret, 0))
    with pytest.raises(AttributeError):
        secret.__dict__  # noqa: B018


def test_everything_that_holds_one() -> None:
    secret = Secret(RAW)
    for holder in (
        Credentials(psk=secret),
        Credentials(static=KeyPair(secret)),
        KeyPair(secret),
        DirectionKey(secret, 7),
        Sealer(secret),
        Opener(secret),
        [secret],
        {"key": secret},
    ):
        assert_hidden(RAW, repr(holder), str(holder))


@ALL_SUITES
def test_a_finished_handshake(suite: Suite) -> None:
    initiator, _, answer = shake(suite)
    established = initiator.receive(answer.reply)
    assert established is not None
    for holder in (established, answer, initiator, make_responder(suite)):
        for key in (established.send_key, established.receive_key, PSK):
            assert_hidden(key.reveal(), repr(holder), str(holder))


@ALL_SUITES
def test_failures(suite: Suite) -> None:
    """Not in the message, the arguments or the chain of exceptions that a log would print."""
    message = make_initiator(suite).message_1()
    with pytest.raises(HandshakeError) as caught:
        make_responder(suite).receive(message[:-1] + bytes([message[-1] ^ 1]))
    assert_hidden(PSK.reveal(), *told(caught.value))
    ours, _ = complete(suite)
    raw = Sealer(ours.send_key).seal(FrameType.DATA, RAW)
    with pytest.raises(FrameError) as refused:
        Opener(ours.receive_key).open(raw)
    assert_hidden(ours.receive_key.reveal(), *told(refused.value))
    assert_hidden(RAW, *told(refused.value))


def told(exc: BaseException) -> tuple[str, ...]:
    return str(exc), repr(exc), repr(exc.args), "".join(traceback.format_exception(exc))
