"""Who is tried first, by policy; with weights, by how often."""

from __future__ import annotations

import collections
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.config import Balance
from stcp_proxy.net.dial import SocketAddress
from stcp_proxy.upstream.balance import Candidate, arrange
from stcp_proxy.upstream.endpoint import Endpoint


def candidates(*weights: int, priority: int = 0, drawn: bool = False) -> list[Candidate]:
    return [
        Candidate(Endpoint(SocketAddress(socket.AF_INET, (f"10.0.{priority}.{at}", 80))), priority, weight, drawn)
        for at, weight in enumerate(weights, 1)
    ]


def indices(known: list[Candidate], order: list[Endpoint]) -> list[int]:
    endpoints = [each.endpoint for each in known]
    return [endpoints.index(each) for each in order]


def firsts(known: list[Candidate], balance: Balance, count: int, rng: random.Random | None = None) -> list[int]:
    rng = rng or random.Random(1)
    return [indices(known, arrange(known, balance, rng))[0] for _ in range(count)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans(), st.integers(0, 9)), min_size=1, max_size=12),
    st.sampled_from(Balance),
    st.integers(0, 1000),
)
def test_everybody_once_and_priorities_first(given: list[tuple[int, int, bool, int]], balance: Balance, seed: int) -> None:
    known = []
    for at, (priority, weight, drawn, live) in enumerate(given):
        endpoint = Endpoint(SocketAddress(socket.AF_INET, (f"10.0.0.{at}", 80)))
        endpoint.live = live
        known.append(Candidate(endpoint, priority, weight, drawn))
    for _ in range(3):
        order = arrange(known, balance, random.Random(seed))
        assert sorted(indices(known, order)) == list(range(len(known)))
        priorities = [known[at].priority for at in indices(known, order)]
        assert priorities == sorted(priorities)


def test_failover_keeps_the_order() -> None:
    known = candidates(1, 1, 1)
    assert firsts(known, Balance.FAILOVER, 20) == [0] * 20
    assert indices(known, arrange(known, Balance.FAILOVER, random.Random(1))) == [0, 1, 2]


def test_round_robin_takes_turns() -> None:
    known = candidates(1, 1, 1)
    assert firsts(known, Balance.ROUND_ROBIN, 7) == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_mixes_weights_evenly() -> None:
    """In the way of nginx: never five in a row where that can be avoided."""
    assert firsts(candidates(5, 1, 1), Balance.ROUND_ROBIN, 7) == [0, 0, 1, 0, 2, 0, 0]


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_round_robin_is_exact_after_each_round(weights: list[int]) -> None:
    counts = collections.Counter(firsts(candidates(*weights), Balance.ROUND_ROBIN, 3 * sum(weights)))
    assert [counts[at] for at in range(len(weights))] == [3 * weight for weight in weights]


def test_round_robin_goes_on_where_it_was_without_unhealthy_endpoints() -> None:
    known = candidates(1, 1, 1)
    assert firsts(known, Balance.ROUND_ROBIN, 3) == [0, 1, 2]
    assert firsts(known[:2], Balance.ROUND_ROBIN, 4) == [0, 1, 0, 1]
    assert sorted(firsts(known, Balance.ROUND_ROBIN, 3)) == [0, 1, 2]


def test_least_connections() -> None:
    known = candidates(1, 1, 1)
    for each, live in zip(known, (4, 2, 3), strict=True):
        each.endpoint.live = live
    assert indices(known, arrange(known, Balance.LEAST_CONNECTIONS, random.Random(1))) == [1, 2, 0]


def test_equals_take_turns() -> None:
    known = candidates(1, 1)
    known[0].endpoint.turn = 7
    known[1].endpoint.turn = 6
    assert firsts(known, Balance.LEAST_CONNECTIONS, 1) == [1]


def test_least_connections_with_weights() -> None:
    known = candidates(3, 1)
    for _ in range(400):
        order = arrange(known, Balance.LEAST_CONNECTIONS, random.Random(1))
        order[0].live += 1
    assert [each.endpoint.live for each in known] == [300, 100]


@pytest.mark.parametrize("balance", Balance)
@pytest.mark.parametrize("weights", [(10, 60, 30), (1, 1), (0, 0, 0), (0, 100)])
def test_weights_of_srv_records(balance: Balance, weights: tuple[int, ...]) -> None:
    """RFC 2782: in proportion; 0 beside others is hardly ever, but not never."""
    if balance is Balance.LEAST_CONNECTIONS:
        return
    known, count = candidates(*weights, drawn=True), 20_000
    counts = collections.Counter(firsts(known, balance, count))
    total = sum(weights)
    for at, weight in enumerate(weights):
        expected = weight / total if total else 1 / len(weights)
        assert counts[at] / count == pytest.approx(expected, abs=0.02)
        assert counts[at] > 0


def test_a_weighted_draw_is_without_replacement() -> None:
    """The second of three is drawn by the weights of those that are left."""
    known, count = candidates(50, 30, 20, drawn=True), 20_000
    rng = random.Random(3)
    seen = collections.Counter(tuple(indices(known, arrange(known, Balance.FAILOVER, rng))) for _ in range(count))
    assert seen[0, 1, 2] / count == pytest.approx(0.5 * 0.6, abs=0.02)
    assert seen[2, 1, 0] / count == pytest.approx(0.2 * 0.375, abs=0.02)
