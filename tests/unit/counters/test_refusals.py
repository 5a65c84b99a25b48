"""The last refusals: repeated ones are one, unknown keys are told apart, and nobody fills the list alone."""

from __future__ import annotations

import dataclasses

from stcp_proxy.counters import Refusal
from stcp_proxy.counters.tunnel import _MAX_KEYS, _MAX_REFUSALS, Refusals


def refusal(client: str, *, reason: str = "unknown_peer", key: str = "") -> Refusal:
    return Refusal(1.0, client, "", reason, "the peer's key is not allowed here", "add it", key=key)


def test_a_repeated_refusal_is_one_with_a_count() -> None:
    kept = Refusals()
    for port in range(5):
        kept.add(refusal(f"10.0.0.1:{port}", key="a"))
    assert [(each.key, each.count, each.client) for each in kept] == [("a", 5, "10.0.0.1:4")]


def test_each_key_is_a_line_of_its_own() -> None:
    kept = Refusals()
    for key in ("a", "b", "a"):
        kept.add(refusal("10.0.0.1:1", key=key))
    assert [(each.key, each.count) for each in kept] == [("a", 2), ("b", 1)]


def test_a_host_with_ever_new_keys_pushes_out_its_own_alone() -> None:
    kept = Refusals()
    kept.add(refusal("10.0.0.1:1", reason="not_stcp"))
    kept.add(refusal("10.0.0.2:1", key="honest"))
    for number in range(1000):
        kept.add(refusal("10.0.0.1:1", key=str(number)))
    found = list(kept)
    assert len(found) == _MAX_KEYS + 2
    assert {"honest", "999", str(1000 - _MAX_KEYS)} <= {each.key for each in found}
    assert [each.reason for each in found].count("not_stcp") == 1


def test_a_served_connection_ends_the_refusals_of_its_host() -> None:
    kept = Refusals()
    kept.add(refusal("10.0.0.1:1", reason="denied"))
    kept.add(refusal("10.0.0.1:2", key="a"))
    kept.add(refusal("10.0.0.2:1", reason="denied"))
    kept.note_served("10.0.0.1:9", 5.0)
    assert {(each.client, each.key): each.served for each in kept} == {
        ("10.0.0.1:1", ""): 5.0,
        ("10.0.0.1:2", "a"): None,  # another key of the host was served: this one is still refused
        ("10.0.0.2:1", ""): None,
    }


def test_the_first_time_is_kept_until_a_connection_was_served() -> None:
    kept = Refusals()
    for at in (1.0, 2.0):
        kept.add(dataclasses.replace(refusal("10.0.0.1:1"), at=at))
    assert [(each.first, each.at, each.served) for each in kept] == [(1.0, 2.0, None)]
    kept.note_served("10.0.0.1:1", 3.0)
    kept.add(dataclasses.replace(refusal("10.0.0.1:1"), at=4.0))
    assert [(each.first, each.at, each.served) for each in kept] == [(4.0, 4.0, None)]


def test_what_is_known_of_hosts_is_bounded() -> None:
    kept = Refusals()
    for number in range(1000):
        kept.add(refusal(f"10.0.{number // 256}.{number % 256}:1", reason="denied"))
    assert len(kept._unserved) <= _MAX_REFUSALS + 1
    kept.note_served("10.0.3.231:1", 5.0)
    assert next(each.served for each in kept) == 5.0
