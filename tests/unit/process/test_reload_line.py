"""The log line of a reload has a bounded length, however many tunnels a file has."""

from __future__ import annotations

import json

from stcp_proxy.config.diff import PlanDiff, Setting, TunnelChange
from stcp_proxy.process.reload import summary


def test_a_short_difference_is_whole() -> None:
    assert summary(PlanDiff(untouched=("a", "b"))) == {"untouched": ["a", "b"]}


def test_a_long_one_is_cut_and_says_so() -> None:
    names = tuple(f"tunnel-{number:04}" for number in range(1500))
    changed = tuple(TunnelChange(name, (Setting("to", "a:1", "b:1"),)) for name in names)
    found = summary(PlanDiff(untouched=names, changed=changed))
    assert found["untouched"][:2] == ["tunnel-0000", "tunnel-0001"]
    assert found["untouched"][-1] == "and 1480 more"
    assert found["changed"][""] == "and 1480 more"
    assert len(json.dumps(found)) < 3000
