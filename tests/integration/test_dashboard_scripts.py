"""Functions of the dashboard's scripts, tried in a browser: rates, the past, figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from harness.browser import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def scripts(browser: Browser, dashboard_url: str) -> Iterator[Page]:
    """A page in which to try the scripts' functions."""
    with Visit(browser) as seen:
        seen.page.route("**/status?*", lambda route: route.abort())
        yield seen.open(dashboard_url)


LOOKS = {
    "steady": ([(1, 0, 0, 0), (1, 2, 10, 20)], [5, 10]),
    "one look": ([(1, 0, 0, 0)], None),
    "a counter went back": ([(1, 0, 100, 100), (1, 2, 5, 200)], None),
    "a silence": ([(1, 0, 0, 0), (1, 60, 600, 600)], None),
    "the same look twice": ([(1, 0, 0, 0), (1, 2, 10, 20), (1, 2, 10, 20)], [5, 10]),
    "the clock was put back": ([(1, 100, 0, 0), (1, 50, 8, 8)], None),
    "another run": ([(1, 0, 0, 0), (2, 2, 1000, 1000)], None),
}


@pytest.mark.parametrize("name", LOOKS)
def test_rates(scripts: Page, name: str) -> None:
    """A rate takes two looks at the same run of the proxy."""
    looks, rate = LOOKS[name]
    run = """async (looks) => {
        const { Rates } = await import('/assets/history.js');
        const rates = new Rates();
        for (const [run, time, up, down] of looks) rates.add(run, time, new Map([['t', [up, down]]]));
        const { up, down } = rates.get('t');
        return Number.isNaN(up) ? null : [up, down];
    }"""
    assert scripts.evaluate(run, looks) == rate


def answer(times: list[int], *, started: int = 0, **rates: list[int | None]) -> dict[str, Any]:
    series = [
        {"tunnel": name.replace("total", ""), "to_wire": rate, "to_plain": rate, "open": rate, "refused": rate}
        for name, rate in rates.items()
    ]
    return {"started": started, "step": 10, "times": times, "series": series}


PASTS: dict[str, tuple[list[dict[str, Any]], list[int], list[int | None]]] = {
    "one answer": ([answer([10, 20], t=[1, 2])], [10, 20], [1, 2]),
    "known points are not added again": ([answer([10, 20], t=[1, 2]), answer([20, 30], t=[2, 3])], [10, 20, 30], [1, 2, 3]),
    "a tunnel that had no connection before": (
        [answer([10, 20], total=[1, 1]), answer([20, 30], total=[1, 1], t=[4, 5])],
        [10, 20, 30],
        [0, 4, 5],
    ),
    "a restart leaves a gap": ([answer([10, 20], t=[1, 2]), answer([50], started=40, t=[3])], [10, 20, 40, 50], [1, 2, None, 3]),
    "the clock was set back": ([answer([100, 110], t=[1, 2]), answer([50], t=[3])], [50], [3]),
    "a tunnel that is gone": ([answer([10], t=[1], total=[1]), answer([20], total=[1])], [], []),
    "an hour is kept": ([answer([10, 20], t=[1, 2]), answer([3615], t=[3])], [20, 3615], [2, 3]),
}


@pytest.mark.parametrize("name", PASTS)
def test_the_past(scripts: Page, name: str) -> None:
    answers, times, rates = PASTS[name]
    run = """async (answers) => {
        const { Past } = await import('/assets/history.js');
        const past = new Past();
        for (const answer of answers) past.add(answer);
        return past.get('t');
    }"""
    found = scripts.evaluate(run, answers)
    assert found["times"] == times
    assert found["to_wire"] == found["refused"] == rates


def test_only_new_points_are_asked_for(scripts: Page) -> None:
    run = """async (answer) => {
        const { Past } = await import('/assets/history.js');
        const past = new Past();
        const found = [past.wanted(25)];
        past.add(answer);
        return [...found, past.wanted(25), past.wanted(31), past.wanted(99_999)];
    }"""
    assert scripts.evaluate(run, answer([10, 20], t=[1, 2])) == [360, 2, 3, 360]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("bytes(0)", "0 B"), ("bytes(999)", "999 B"), ("bytes(1000)", "1.0 kB"), ("bytes(99_999)", "100 kB"),
        ("bytes(999_999)", "1.0 MB"), ("bytes(1.5e15)", "1.5 PB"),
        ("bytes(5e18)", "5000 PB"), ("bytes(NaN)", "–"), ("rate(null ?? NaN)", "–"),
        ("duration(0)", "0 s"), ("duration(59.9)", "59 s"), ("duration(3600)", "1 h"), ("duration(3725)", "1 h 2 min"),
        ("duration(90_061)", "1 d 1 h"), ("duration(-5)", "0 s"), ("plural(1, 'key')", "1 key"),
        ("plural(2000, 'key')", "2,000 keys"),
        ("clock(0, 10)", "00:00:00 UTC"), ("clock(86_399, 86_400)", "1970-01-01 23:59:59 UTC"), ("clock(NaN)", "–"),
    ],
)  # fmt: skip
def test_figures(scripts: Page, call: str, text: str) -> None:
    assert scripts.evaluate(f"async () => (await import('/assets/format.js')).{call}") == text
