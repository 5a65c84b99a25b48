"""Can this key go?"""

from __future__ import annotations

from typing import Any

import pytest

from stcp_proxy.admin.key_removal import judge
from stcp_proxy.admin.status_schema import KeyStatus


def key(text: str, **fields: Any) -> KeyStatus:
    given: dict[str, Any] = {"name": "(own)", "own": True, "tunnels": ["t"], "connections": 0, "total": 0, "last_use": None}
    return KeyStatus(key=text, **given | fields)


def answer(first: KeyStatus, *others: KeyStatus) -> tuple[str, str]:
    found = judge([first, *others])[0]
    return found.may_go, found.why


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ({"uses": {"app": 10.0}}, {"uses": {"app": 20.0}}, ("yes", "every peer has used another key since")),
        ({"uses": {"app": 0.0}}, {"uses": {"app": 20.0}}, ("yes", "every peer has used another key since")),
        ({"uses": {"app": 10.0}, "connections": 2}, {"uses": {"app": 20.0}}, ("no", "open connections: 2")),
        ({"uses": {"app": 20.0}}, {"uses": {"app": 10.0}}, ("no", "app has not used another key since")),
        ({"uses": {"app": 20.0}}, {"uses": {"app": 20.0}}, ("no", "app has not used another key since")),
        ({"uses": {"a": 1.0, "b": 5.0}}, {"uses": {"a": 2.0, "b": 4.0}}, ("no", "b has not used another key since")),
        ({"uses": {"a": 1.0, "b": 0.0}}, {"uses": {"a": 2.0, "b": 0.0}}, ("unknown", "not seen since the start: b")),
        ({"uses": {"a": 1.0}}, {"uses": {"a": 2.0}, "tunnels": ["other"]}, ("no", "it is the only one")),
    ],
)
def test_own_key(old: dict[str, Any], new: dict[str, Any], says: tuple[str, str]) -> None:
    assert answer(key("old", **old), key("new", **new)) == says


def test_key_of_a_peer() -> None:
    app = {"name": "app", "own": False}
    old, new = key("old", **app, uses={"app": 5.0}), key("new", **app, uses={"app": 6.0})
    assert answer(old, new)[0] == "yes"
    assert answer(new, old)[0] == "no"
    assert answer(old, key("db", name="db", own=False, uses={"db": 9.0})) == ("no", "it is the only one")
