"""Several static keys of a responder: it answers for each, reports which, and bounds what a stranger costs."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.errors import HandshakeError, HandshakeNotAuthentic, MalformedHandshake, UnknownPeer
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import MAX_RING, Credentials, Initiator, Responder
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MESSAGE_1_LEN, FrameType, Suite

from .fixed import INITIATOR, PSK, STRANGER, pair

RING = [pair(bytes([n]) * 32) for n in range(101, 101 + MAX_RING)]
KEY_SUITES = pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
suites = st.sampled_from([Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
HEAD = 8


def responder(suite: Suite, ring: list[KeyPair]) -> Responder:
    return Responder({suite}, Credentials(ring[0], further=tuple(ring[1:])), allowed={INITIATOR.public})


def initiator(suite: Suite, to: KeyPair, mine: KeyPair = INITIATOR) -> Initiator:
    return Initiator(suite, Credentials(mine), remote_static=to.public)


@given(suites, st.integers(1, MAX_RING), st.data())
def test_each_key_is_answered(suite: Suite, size: int, data: st.DataObject) -> None:
    """In one piece or two: both sides have the same keys, and know which static key was used."""
    at = data.draw(st.integers(0, size - 1))
    mine = initiator(suite, RING[at])
    theirs = responder(suite, RING[:size])
    message = mine.message_1()
    cut = data.draw(st.integers(1, len(message)))
    answer = theirs.receive(message[:cut])
    if cut < len(message):
        assert answer is None
        answer = theirs.receive(message[cut:])
    assert answer is not None
    established = mine.receive(answer.reply)
    assert established is not None
    assert answer.established.own == established.peer == RING[at].public
    assert answer.established.peer == established.own == INITIATOR.public
    assert answer.established.handshake_hash == established.handshake_hash
    frame = Sealer(established.send_key).seal(FrameType.DATA, b"word")
    assert Opener(answer.established.receive_key).open(frame) == (len(frame), FrameType.DATA, b"word")


@KEY_SUITES
def test_key_outside_the_ring(suite: Suite) -> None:
    with pytest.raises(HandshakeNotAuthentic, match="first message"):
        responder(suite, RING).receive(initiator(suite, STRANGER).message_1())


@KEY_SUITES
@pytest.mark.parametrize("at", range(MAX_RING))
def test_unknown_peer_stays_unknown(suite: Suite, at: int) -> None:
    """The message fits one of the keys: the others are not tried."""
    with pytest.raises(UnknownPeer):
        responder(suite, RING).receive(initiator(suite, RING[at], STRANGER).message_1())


class Counting(KeyPair):
    """Counts its Diffie-Hellman computations."""

    done: ClassVar[Counter[bytes]] = Counter()

    def exchange(self, public: bytes) -> bytes:
        Counting.done[self.public] += 1
        return super().exchange(public)


@given(suites, st.binary(min_size=MESSAGE_1_LEN[Suite.HYBRID_KEYS], max_size=MESSAGE_1_LEN[Suite.HYBRID_KEYS]))
def test_junk_costs_one_computation_for_each_key(suite: Suite, junk: bytes) -> None:
    """At most one computation for each key, whatever the bytes are. The number of keys is bounded."""
    Counting.done.clear()
    ring: list[KeyPair] = [Counting(Secret(bytes([n]) * 32)) for n in range(101, 101 + MAX_RING)]
    head = initiator(suite, RING[0]).message_1()[:HEAD]
    with pytest.raises(HandshakeError):
        responder(suite, ring).receive(head + junk[: MESSAGE_1_LEN[suite]])
    assert set(Counting.done.values()) <= {1}


@KEY_SUITES
def test_message_spoilt_behind_the_first_tag(suite: Suite) -> None:
    """The most expensive message of a stranger: good for the last key up to its final tag."""
    Counting.done.clear()
    ring: list[KeyPair] = [Counting(Secret(bytes([n]) * 32)) for n in range(101, 101 + MAX_RING)]
    message = bytearray(initiator(suite, RING[-1]).message_1())
    message[-1] ^= 1
    with pytest.raises(HandshakeNotAuthentic):
        responder(suite, ring).receive(bytes(message))
    assert Counting.done.total() == MAX_RING + 1  # es for each key, and ss for the right one


@KEY_SUITES
def test_low_order_point_ends_it_at_the_first_key(suite: Suite) -> None:
    Counting.done.clear()
    ring: list[KeyPair] = [Counting(Secret(bytes([n]) * 32)) for n in range(101, 101 + MAX_RING)]
    message = bytearray(initiator(suite, RING[0]).message_1())
    message[HEAD : HEAD + 32] = bytes(32)
    with pytest.raises(MalformedHandshake, match="low order"):
        responder(suite, ring).receive(bytes(message))
    assert Counting.done.total() == 1


@pytest.mark.parametrize(
    ("credentials", "suite"),
    [
        (Credentials(RING[0], further=(*RING[1:], STRANGER)), Suite.HYBRID_KEYS),
        (Credentials(psk=PSK, further=(RING[0],)), Suite.HYBRID_PSK),
        (Credentials(further=(RING[0],)), Suite.HYBRID_KEYS),
    ],
)
def test_invalid_rings(credentials: Credentials, suite: Suite) -> None:
    """Too long, beside a shared secret, without a first key."""
    with pytest.raises(ValueError, match="credentials are"):
        credentials.check(suite)
