"""Can this key go? The answer for each key of a ring, from what has been seen of it and of the others.

A key can go when no open connection has come by it and everybody who could need it has come by another key since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from stcp_proxy.admin.status_schema import KeyStatus

Answer = tuple[Literal["yes", "no", "unknown"], str]


def judge(keys: Sequence[KeyStatus]) -> list[KeyStatus]:
    """The same keys, each with its answer; what all workers have seen of them is summed up already."""
    return [replace(key, may_go=answer, why=why) for key in keys for answer, why in [_answer(key, keys)]]


def _answer(key: KeyStatus, keys: Sequence[KeyStatus]) -> Answer:
    others = [other for other in keys if other is not key and _same_ring(key, other)]
    if not others:
        return "no", "it is the only one"
    if key.connections:
        return "no", f"open connections: {key.connections}"
    unseen = []
    for name, last in sorted(key.uses.items()):
        since = max(other.uses.get(name, 0.0) for other in others)
        if last and last >= since:
            return "no", f"{name} has come by no other key since"
        if not since:
            unseen.append(name)
    if unseen:
        return "unknown", f"not seen since the start: {', '.join(unseen)}"
    return "yes", "everybody has come by another key since"


def _same_ring(key: KeyStatus, other: KeyStatus) -> bool:
    """Whether one may take the other's place."""
    return key.own == other.own and key.name == other.name and bool(set(key.tunnels) & set(other.tunnels))
