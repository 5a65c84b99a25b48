"""What others build upon only grows: settings, options, metrics, `/status`, reasons, exit status, numbers on the wire."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness import interfaces
from harness.interfaces import OPTIONAL, broken

FROZEN: interfaces.Interfaces = json.loads(interfaces.FILE.read_text(encoding="utf-8"))
HOW = "docs/COMPATIBILITY.md says how an interface changes"


@pytest.fixture(scope="module")
def today() -> interfaces.Interfaces:
    return interfaces.today()


def test_nothing_is_gone(today: interfaces.Interfaces) -> None:
    assert broken(FROZEN, today) == [], HOW


def test_the_frozen_file_has_every_section(today: interfaces.Interfaces) -> None:
    assert FROZEN.keys() == today.keys()
    assert all(FROZEN.values())


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every name and of every value in a list."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        yield from ((*path, number) for number in range(len(value)))


def without(path: tuple[Any, ...]) -> interfaces.Interfaces:
    """The frozen interfaces less one of their names or values."""
    changed: Any = copy.deepcopy(FROZEN)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return changed


@pytest.mark.parametrize("section", FROZEN)
def test_each_loss_is_found(section: str) -> None:
    paths = [path for path in leaves(FROZEN[section], (section,)) if "range" not in path[:-1]]
    assert [path for path in paths if not broken(FROZEN, without(path))] == []


def changed(section: str, name: str, **facts: Any) -> list[str]:
    """The promises that a change of one entry would break."""
    now = copy.deepcopy(FROZEN)
    now[section][name] = now[section].get(name, {}) | facts
    return broken(FROZEN, now)


def test_a_range_may_only_become_wider() -> None:
    lowest, highest = FROZEN["settings"]["config.workers"]["range"]
    assert changed("settings", "config.workers", range=[lowest, highest + 1]) == []
    assert changed("settings", "config.workers", range=[lowest, highest - 1]) != []
    assert changed("settings", "config.workers", range=[lowest + 1, highest]) != []


def test_a_default_and_a_kind_stay() -> None:
    assert changed("settings", "config.drain", default=1.0) != []
    assert changed("metrics", "stcp_ready", kind="counter") != []


def test_a_new_name_is_optional() -> None:
    assert changed("settings", "tunnel.colour", **{OPTIONAL: True}) == []
    assert changed("settings", "tunnel.colour") != []
    assert changed("settings", "paint.colour") == []  # a new mapping may require what it likes
    assert changed("options", "run --colour") != []
    assert changed("metrics", "stcp_colour", kind="gauge", labels=[]) == []


def test_what_the_generator_adds_keeps_what_was_there(today: interfaces.Interfaces) -> None:
    known = without(("metrics", "stcp_ready"))
    assert broken(known, interfaces.merged(known, today)) == []
    assert "stcp_ready" in interfaces.merged(known, today)["metrics"]
