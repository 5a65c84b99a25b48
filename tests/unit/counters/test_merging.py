"""Every field of a report declares how it merges, and each way does what it says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

import pytest

from stcp_proxy.admin.report import Report
from stcp_proxy.counters import Counts, Dials, Durations, Ledger
from stcp_proxy.counters.merging import (
    CONCATENATED,
    FIRST,
    LATEST,
    MAX,
    MAX_EACH,
    MIN,
    NESTED,
    SUM,
    SUM_BUCKETS,
    SUM_EACH,
    UNION,
    by,
    declared,
    merge,
    of_best,
)


def reachable(kind: Any) -> set[type]:
    """Every dataclass in the annotations below `kind`, itself included."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return {found for arg in get_args(kind) for found in reachable(arg)}
    hints = get_type_hints(kind, include_extras=True)
    return {kind} | {found for field in dataclasses.fields(kind) for found in reachable(hints[field.name])}


@pytest.mark.parametrize("kind", sorted(reachable(Report), key=lambda kind: kind.__name__))
def test_every_field_declares_how_it_merges(kind: type) -> None:
    assert declared(kind).keys() == {field.name for field in dataclasses.fields(kind)}


def test_a_field_without_a_declaration_is_a_mistake() -> None:
    @dataclass
    class Forgotten:
        count: int

    globals()["Forgotten"] = Forgotten
    with pytest.raises(TypeError, match=r"Forgotten\.count does not declare how it merges"):
        declared(Forgotten)


@dataclass(frozen=True)
class Part:
    name: Annotated[str, FIRST] = ""
    count: Annotated[int, SUM] = 0
    health: Annotated[str, of_best(lambda part: part.count)] = ""


@dataclass
class All:
    first: Annotated[str, FIRST]
    least: Annotated[int, MIN]
    most: Annotated[int, MAX]
    latest: Annotated[float | None, LATEST]
    union: Annotated[list[str], UNION]
    concatenated: Annotated[list[str], CONCATENATED]
    sums: Annotated[dict[str, int], SUM_EACH]
    maxima: Annotated[dict[str, int], MAX_EACH]
    buckets: Annotated[list[int], SUM_BUCKETS]
    nested: Annotated[Part, NESTED]
    parts: Annotated[list[Part], by(lambda part: part.name)]


def test_each_way() -> None:
    one = All("a", 2, 2, None, ["x", "y"], ["x"], {"k": 1}, {"k": 5}, [1, 2], Part("n", 1, "bad"), [Part("p", 1), Part("q", 2)])
    two = All("b", 1, 3, 7.0, ["y", "z"], ["x"], {"k": 2, "l": 3}, {"k": 4}, [3, 4], Part("n", 2, "good"), [Part("q", 5)])
    parts = [Part("p", 1), Part("q", 7)]
    whole = All("a", 1, 3, 7.0, ["x", "y", "z"], ["x", "x"], {"k": 3, "l": 3}, {"k": 5}, [4, 6], Part("n", 3, "good"), parts)
    assert merge([one, two]) == whole


def test_one_part_is_itself() -> None:
    only = Part("n", 1)
    assert merge([only]) is only


def test_counts_of_tunnels_are_summed() -> None:
    ledgers = [Ledger(), Ledger()]
    for number, ledger in enumerate(ledgers, 1):
        ledger.accepted = number
        ledger.ended["peer", "python", "finished"] = number
        ledger.refused["peer", "denied"] = number
        ledger.limits["max_connections"] = number
        ledger.dials.end(0.002, None)
    counts = merge(ledgers, Counts)
    assert (counts.accepted, counts.ended_by_reason, counts.refused_by_reason) == (3, {"finished": 3}, {"denied": 3})
    assert (counts.total_ended, counts.total_refused, counts.limits["max_connections"]) == (3, 3, 3)
    assert isinstance(counts.dials, Dials)
    assert counts.dials.results == {"ok": 2}
    assert counts.dials.durations == Durations([0, 2, *[0] * 12], 0.004)
