"""Which pair of keys a connect tunnel tries, and when it looks again."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.handshake.key_order import LOOK_AGAIN, Choice, Pair
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.secret import Secret

OWN = [KeyPair(Secret(bytes([n]) * 32)) for n in range(1, 5)]
PEERS = [bytes([n]) * 32 for n in range(11, 15)]


def test_configured_order() -> None:
    """The preferred ones first, on both sides alike."""
    pairs = Choice(OWN[:2], PEERS[:2]).order("a", 0)
    assert pairs == [Pair(OWN[0], PEERS[0]), Pair(OWN[0], PEERS[1]), Pair(OWN[1], PEERS[0]), Pair(OWN[1], PEERS[1])]


@given(st.integers(1, 4), st.integers(1, 4))
def test_every_pair_once(own: int, peers: int) -> None:
    pairs = Choice(OWN[:own], PEERS[:peers]).order("a", 0)
    assert len(pairs) == own * peers
    assert {(pair.own, pair.peer) for pair in pairs} == set(itertools.product(OWN[:own], PEERS[:peers]))


def test_only_the_first_pair_of_the_file_is_preferred() -> None:
    """A wire leg that another pair made is not kept."""
    choice = Choice(OWN[:2], PEERS[:2])
    first, *others = choice.order("a", 0)
    choice.worked("a", others[0], 0)
    assert choice.is_preferred(first)
    assert not any(choice.is_preferred(pair) for pair in others)


def test_what_worked_comes_first_and_is_questioned_once_a_minute() -> None:
    choice = Choice(OWN[:2], PEERS[:1])
    new, old = choice.order("a", 0)
    choice.worked("a", old, 0)
    assert choice.order("a", LOOK_AGAIN - 1) == [old, new]
    assert choice.order("b", LOOK_AGAIN - 1) == [new, old]  # another address, another story
    assert choice.order("a", LOOK_AGAIN) == [new, old]
    assert choice.order("a", LOOK_AGAIN) == [old, new]  # one connection asks, the others do not wait for its answer
    choice.worked("a", old, LOOK_AGAIN)
    assert choice.order("a", 2 * LOOK_AGAIN - 1) == [old, new]
    assert choice.order("a", 2 * LOOK_AGAIN) == [new, old]
    choice.worked("a", new, 2 * LOOK_AGAIN)
    assert choice.order("a", 100 * LOOK_AGAIN) == [new, old]


def test_first_key_that_stops_working_gives_way() -> None:
    choice = Choice(OWN[:2], PEERS[:1])
    new, old = choice.order("a", 0)
    choice.worked("a", new, 0)
    choice.worked("a", old, 10)
    assert choice.order("a", 11) == [old, new]


def test_shared_secret_has_one_pair() -> None:
    choice = Choice((None,), (None,))
    choice.worked("a", Pair(None, None), 0)
    assert choice.order("a", 1000) == [Pair(None, None)]


def test_memory_is_bounded() -> None:
    choice = Choice(OWN[:2], PEERS[:1])
    _, old = choice.order("a", 0)
    for number in range(10_000):
        choice.worked(f"127.0.0.1:{number}", old, 0)
    assert len(choice._known) <= 256
