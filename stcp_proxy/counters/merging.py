"""How the values of several worker processes become one.

A field of a dataclass declares how it merges, in its annotation:

    accepted: Annotated[int, SUM]
    started: Annotated[float, MIN]

`merge` follows the declarations. A field without one is a mistake, which `declared` reports.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Merge:
    """A way to merge one field.

    Attributes:
        of: takes the objects of all workers, at least one, and the name of the field; returns the merged value.
    """

    of: Callable[[Sequence[Any], str], Any]


def declared(kind: type) -> Mapping[str, Merge]:
    """How each field of a dataclass merges.

    Raises:
        TypeError: a field declares nothing.
    """
    return _declared(kind)


@functools.cache
def _declared(kind: type) -> Mapping[str, Merge]:
    hints = get_type_hints(kind, include_extras=True)
    found: dict[str, Merge] = {}
    for field in dataclasses.fields(kind):
        ways = [each for each in getattr(hints[field.name], "__metadata__", ()) if isinstance(each, Merge)]
        if len(ways) != 1:
            raise TypeError(f"{kind.__name__}.{field.name} does not declare how it merges")
        found[field.name] = ways[0]
    return found


def merge(parts: Sequence[T], kind: type[T] | None = None) -> T:
    """One object for those of several workers.

    Args:
        parts: dataclass objects, at least one.
        kind: the type of the result; by default that of the first object.
    """
    if len(parts) == 1:
        return parts[0]
    result = kind or type(parts[0])
    return result(**{name: way.of(parts, name) for name, way in declared(result).items()})


def _of(values: Callable[[list[Any]], Any]) -> Merge:
    """A merge that needs only the field's own values."""
    return Merge(lambda parts, name: values([getattr(part, name) for part in parts]))


def _latest(values: list[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def _union(values: list[Sequence[Hashable]]) -> list[Hashable]:
    return list(dict.fromkeys(each for value in values for each in value))


def _each(way: Callable[[Any, Any], Any]) -> Callable[[list[Mapping[Any, Any]]], dict[Any, Any]]:
    def merged(values: list[Mapping[Any, Any]]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for value in values:
            for key, number in value.items():
                found[key] = way(found[key], number) if key in found else number
        return found

    return merged


FIRST: Final = _of(lambda values: values[0])
"""The value is the same in every worker."""
SUM: Final = _of(sum)
MIN: Final = _of(min)
MAX: Final = _of(max)
LATEST: Final = _of(_latest)
"""The largest value that is not None."""
UNION: Final = _of(_union)
"""Every value of the lists once, in the order of the workers."""
CONCATENATED: Final = _of(lambda values: [each for value in values for each in value])
SUM_EACH: Final = _of(_each(lambda a, b: a + b))
"""Dicts of numbers: the sums by key."""
MAX_EACH: Final = _of(_each(max))
SUM_BUCKETS: Final = _of(lambda values: [sum(counts) for counts in zip(*values, strict=True)])
"""Lists of equal length: the sums by place."""
NESTED: Final = _of(merge)
"""Dataclass objects, which declare the rest."""


def nested_as(kind: type) -> Merge:
    """Dataclass objects of a type and of types derived from it: the result is of the type itself."""
    return _of(lambda values: merge(values, kind))


def by(key: Callable[[Any], Hashable]) -> Merge:
    """Lists of dataclass objects: those with the same key are merged, in the order of their first appearance."""

    def merged(values: list[Sequence[Any]]) -> list[Any]:
        found: dict[Hashable, list[Any]] = {}
        for value in values:
            for each in value:
                found.setdefault(key(each), []).append(each)
        return [merge(parts) for parts in found.values()]

    return _of(merged)


def of_best(rank: Callable[[Any], Any]) -> Merge:
    """The value of the worker whose object ranks highest; of equals the first."""
    return Merge(lambda parts, name: getattr(max(parts, key=rank), name))
