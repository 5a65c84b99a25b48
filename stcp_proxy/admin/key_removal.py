"""Whether a key can be removed from the file. The answer depends on the use of the key and of its key ring.

A key can be removed when no open connection uses it, and every peer that could need it has used another key since.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from stcp_proxy.admin.status_schema import KeyStatus

Answer = tuple[Literal["yes", "no", "unknown"], str]


def judge(keys: Sequence[KeyStatus]) -> list[KeyStatus]:
    """Return the same keys, each with its answer.

    Args:
        keys: the keys, with their use in all worker processes.
    """
    rings: dict[tuple[bool, str], list[KeyStatus]] = collections.defaultdict(list)
    for key in keys:
        rings[key.own, key.name].append(key)
    return [replace(key, may_go=answer, why=why) for key in keys for answer, why in [_answer(key, rings[key.own, key.name])]]


def _answer(key: KeyStatus, ring: Sequence[KeyStatus]) -> Answer:
    others = [other for other in ring if other is not key and set(key.tunnels) & set(other.tunnels)]
    if not others:
        return "no", "it is the only one"
    if key.connections:
        return "no", f"open connections: {key.connections}"
    unseen = []
    for name, last in sorted(key.uses.items()):
        since = max(other.uses.get(name, 0.0) for other in others)
        if last and last >= since:
            return "no", f"{name} has not used another key since"
        if not since:
            unseen.append(name)
    if unseen:
        return "unknown", f"not seen since the start: {', '.join(unseen)}"
    return "yes", "every peer has used another key since"
