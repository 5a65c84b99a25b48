"""The order in which a connection tries healthy endpoints.

    failover            the order of the file; SRV records by priority, then at random with the weights of RFC 2782
    round-robin         each endpoint in turn, in proportion to the weights and evenly mixed
    least-connections   the fewest live connections in proportion to the weights; of equals, the least recently used

With all three, priorities come first. An SRV weight of 0 means "hardly ever" beside other weights. Endpoints that all have weight
0 are equal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stcp_proxy.config import Balance
from stcp_proxy.upstream.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint with the priority and the weight that one address under `to` gives it.

    Attributes:
        endpoint: the endpoint to dial.
        priority: lower ones first.
        weight: its share among those of its priority.
        drawn: whether the order among equals is random, as it is for SRV records.
    """

    endpoint: Endpoint
    priority: int
    weight: int
    drawn: bool


def arrange(candidates: Sequence[Candidate], balance: Balance, rng: random.Random) -> list[Endpoint]:
    """The endpoints in the order to try them. With round-robin, the call takes the turn of the first one.

    Args:
        candidates: the healthy ones; of one address under `to` with failover, of all addresses otherwise.
        balance: the policy.
        rng: random numbers.
    """
    if len(candidates) == 1:
        return [candidates[0].endpoint]
    order = _ORDERS[balance]
    endpoints: list[Endpoint] = []
    first = True
    for priority in sorted({each.priority for each in candidates}):
        peers = [each for each in candidates if each.priority == priority]
        endpoints += (each.endpoint for each in order(peers, rng, first))
        first = False
    return endpoints


def _failover(candidates: list[Candidate], rng: random.Random, _first: bool) -> Iterable[Candidate]:
    drawn = [each for each in candidates if each.drawn]
    if not drawn:
        return candidates
    shares = _shares(drawn)
    keys = {each: rng.random() ** (1 / share) for each, share in zip(drawn, shares, strict=True)}  # a draw without replacement
    return sorted(drawn, key=lambda each: -keys[each]) + [each for each in candidates if not each.drawn]


def _round_robin(candidates: list[Candidate], _rng: random.Random, first: bool) -> Iterable[Candidate]:
    """The largest credit first. Each turn adds its share to every credit, and takes the sum from the endpoint that is chosen."""
    shares = _shares(candidates)
    if first:
        for each, share in zip(candidates, shares, strict=True):
            each.endpoint.due += share
        chosen = max(candidates, key=lambda each: each.endpoint.due)
        chosen.endpoint.due -= sum(shares)
        others = [each for each in candidates if each is not chosen]
        return [chosen, *sorted(others, key=lambda each: -each.endpoint.due)]
    return sorted(candidates, key=lambda each: -each.endpoint.due)


def _least_connections(candidates: list[Candidate], _rng: random.Random, _first: bool) -> Iterable[Candidate]:
    shares = dict(zip(candidates, _shares(candidates), strict=True))
    return sorted(candidates, key=lambda each: ((each.endpoint.live + 1) / shares[each], each.endpoint.turn))


def _shares(candidates: Iterable[Candidate]) -> list[float]:
    """Weights above zero. A weight of 0 is 0.01 beside larger ones."""
    weights = [each.weight for each in candidates]
    return [float(weight) or 0.01 for weight in weights] if any(weights) else [1.0] * len(weights)


_ORDERS: dict[Balance, Callable[[list[Candidate], random.Random, bool], Iterable[Candidate]]] = {
    Balance.FAILOVER: _failover,
    Balance.ROUND_ROBIN: _round_robin,
    Balance.LEAST_CONNECTIONS: _least_connections,
}
