"""Counting: percentiles, and the report's own arithmetic."""

import pytest

from stcp_proxy.lab.reference import RUNS, Reference
from stcp_proxy.lab.tally import HIGHEST, Tally, histogram

pytest.importorskip("hdrh", reason="hdrhistogram is not installed")


def test_percentiles() -> None:
    tally = Tally()
    for milliseconds in range(1, 1001):
        tally.latencies[milliseconds * 1000] += 1
    summary = tally.summary(10.0, 260)
    assert summary.requests == 1000
    assert summary.requests_per_second == 100
    assert summary.average_ms == pytest.approx(500.5)
    assert summary.p50_ms == pytest.approx(500, rel=0.002)
    assert summary.p99_ms == pytest.approx(990, rel=0.002)
    assert summary.p999_ms == pytest.approx(999, rel=0.002)
    assert summary.max_ms == 1000


def test_nothing_measured_is_all_zero() -> None:
    summary = Tally().summary(1.0, 260)
    assert (summary.requests, summary.average_ms, summary.p99_ms) == (0, 0, 0)
    assert summary.clean


def test_values_outside_the_histogram_are_held_at_its_edges() -> None:
    held = histogram({0: 1, HIGHEST * 2: 1})
    assert held.get_total_count() == 2


@pytest.mark.parametrize("field", ["operation_errors", "connection_errors", "timeouts"])
def test_any_error_is_not_clean(field: str) -> None:
    tally = Tally()
    setattr(tally, field, 1)
    assert not tally.summary(1.0, 260).clean


def test_only_the_first_error_is_kept() -> None:
    tally = Tally()
    tally.note("this")
    tally.note("that")
    assert tally.first_error == "this"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.title)
def test_throughput_is_counted_as_the_reference_counts_it(run: Reference) -> None:
    tally = Tally()
    tally.latencies[1000] = round(run.requests_per_second * 70)
    assert tally.summary(70.0, run.size + 4).throughput_mb_s == pytest.approx(run.throughput_mb_s, rel=0.001)
