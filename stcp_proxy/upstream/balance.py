"""The order in which a connection tries the endpoints that are in order.

    failover            as the file has it; SRV records by priority and, within one, by chance weighted as RFC 2782 says
    round-robin         everybody in turn, in proportion to the weights, as evenly mixed as that can be
    least-connections   the fewest live connections, in proportion to the weights; of equals the one whose turn is longest ago

Priorities come first with all of them. An SRV weight of 0 is "hardly ever" beside others, and equal among its like.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stcp_proxy.config import Balance
from stcp_proxy.upstream.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint as one line of `to` has it.

    Attributes:
        endpoint: what to dial.
        priority: lower ones first.
        weight: its part among those of its priority.
        drawn: whether the order among its like is left to chance, as it is for SRV records.
    """

    endpoint: Endpoint
    priority: int
    weight: int
    drawn: bool


def arrange(candidates: Sequence[Candidate], balance: Balance, rng: random.Random) -> list[Endpoint]:
    """The endpoints in the order to try them. Round-robin has had its turn with this.

    Args:
        candidates: those in order, of one line with failover, of all lines otherwise.
        balance: the policy.
        rng: chance.
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
    """Whoever is owed most. Everybody's due grows by their share with each turn, and whose turn it is pays for all of it."""
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
    """Weights that can be divided by. Beside others a weight of 0 is a hundredth of the least weight that counts."""
    weights = [each.weight for each in candidates]
    return [float(weight) or 0.01 for weight in weights] if any(weights) else [1.0] * len(weights)


_ORDERS: dict[Balance, Callable[[list[Candidate], random.Random, bool], Iterable[Candidate]]] = {
    Balance.FAILOVER: _failover,
    Balance.ROUND_ROBIN: _round_robin,
    Balance.LEAST_CONNECTIONS: _least_connections,
}
