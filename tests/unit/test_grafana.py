"""The dashboard by Grafana's own types: each key is one that Grafana knows, with a value of its type.

Debian has no Grafana. The types are those that Grafana generates from its schemas, in its SDK for Python.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARD = Path(__file__).resolve().parents[2] / "configs" / "grafana" / "stcp-proxy.json"


@pytest.fixture
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def as_grafana_reads_it(dashboard: dict[str, Any]) -> dict[str, Any]:
    """A dashboard that was read into Grafana's types and written from them."""
    plugins.register_default_plugins()
    found: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return found


def lost(before: Any, after: Any, place: str = "") -> list[str]:
    """The places of `before` that `after` does not have, or has with another value."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [each for key in before for each in lost(before[key], after.get(key), f"{place}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [each for index, pair in enumerate(zip(before, after, strict=True)) for each in lost(*pair, f"{place}/{index}")]
    return [] if before == after else [place]


def test_grafana_knows_every_key(dashboard: dict[str, Any]) -> None:
    assert lost(dashboard, as_grafana_reads_it(dashboard)) == []


@pytest.mark.parametrize(
    ("place", "key"), [("/panels/0/gridPos", "heigth"), ("/panels/4", "fieldConfg"), ("/templating/list/1", "includAll")]
)
def test_a_misspelt_key_is_found(dashboard: dict[str, Any], place: str, key: str) -> None:
    where: Any = dashboard
    for step in place.split("/")[1:]:
        where = where[int(step) if isinstance(where, list) else step]
    where[key] = 1
    assert lost(dashboard, as_grafana_reads_it(dashboard)) == [f"{place}/{key}"]


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """Grafana's grid is 24 wide; each panel has an id of its own."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert taken.isdisjoint(cells)
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
