"""How many connections a process has descriptors for, and who is woken when one ends."""

from __future__ import annotations

import resource

import pytest

from stcp_proxy.tunnel import descriptors as module
from stcp_proxy.tunnel.descriptors import Descriptors


class Tunnel:
    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The limit of open files, and how many are open."""
    values = {"soft": 1000, "open": 20}
    monkeypatch.setattr(module.resource, "getrlimit", lambda _kind: (values["soft"], values["soft"]))
    monkeypatch.setattr(module.os, "listdir", lambda _path: ["x"] * values["open"])
    return values


@pytest.mark.parametrize(
    ("soft", "opened", "listeners", "places"), [(1000, 20, 2, 458), (64, 16, 4, 20), (20, 19, 1, 1), (8, 16, 1, 1)]
)
def test_two_for_each(limit: dict[str, int], soft: int, opened: int, listeners: int, places: int) -> None:
    limit.update(soft=soft, open=opened)
    found = Descriptors()
    found.measure(listeners)
    assert found.places == places


def test_a_limit_without_end(limit: dict[str, int]) -> None:
    limit["soft"] = resource.RLIM_INFINITY
    found = Descriptors()
    found.measure(1)
    assert found.places == float("inf")
    assert not found.full


def test_a_reload_with_more_listeners_leaves_fewer_places(limit: dict[str, int]) -> None:
    found = Descriptors()
    found.measure(2)
    before = found.places
    limit["open"] = 500  # connections that are open by now, which are not counted again
    found.set_listeners(12)
    assert found.places == before - 5


def test_the_tunnels_are_woken_when_the_last_place_comes_free(limit: dict[str, int]) -> None:
    limit.update(soft=40, open=20)
    found, tunnel = Descriptors(), Tunnel()
    found.sharers.add(tunnel)
    found.measure(1)
    for _ in range(int(found.places)):
        assert not found.full
        found.take()
    assert found.full
    before = tunnel.woken
    assert found.give_back()
    found.wake()
    assert tunnel.woken == before + 1
    assert not found.give_back()


def test_the_limit_that_would_do(limit: dict[str, int]) -> None:
    found = Descriptors()
    found.measure(2)
    assert found.needed(458) == 1000
    limit["soft"] = found.needed(10_000)
    found.measure(2)
    assert found.places == 10_000
