"""Durations: the texts that are one, and the texts that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.config.duration import parse_duration
from stcp_proxy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(5, 5), (0.5, 0.5), ("5", 5), ("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h", 3600), ("1.5 h", 5400), ("30d", 2592000)],
)
def test_duration(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 8000), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("", 1)]))
def test_any_duration(number: int, unit: tuple[str, float]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == pytest.approx(number * unit[1])


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1y", "367d", "1h30m", "1e3", "٣s", "9999999999", True, None, -1, float("nan"), float("inf"), []]
)
def test_no_duration(text: object) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        parse_duration(text)
