"""Lines that `check` prints are as wide as the terminal, or as COLUMNS says."""

from __future__ import annotations

import pytest

from stcp_proxy.cli.console import wrapped

KEY = "stcp-pub:" + "A" * 43 + "="
TEXT = f"""redis (connect)
  keep         a wire leg waits 30 s for its next connection, up to 600 s old, at most 32
  own key      {KEY}

dns: answers used for 5 s, and 3600 s longer while the resolver is down"""


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_and_no_word_is_cut(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    found = wrapped(TEXT)
    assert max(map(len, found.split("\n"))) <= width
    assert found.split() == TEXT.split()
    assert "\n\n" in found


def test_a_continued_line_begins_below_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert wrapped(TEXT).split("\n")[:5] == [
        "redis (connect)",
        "  keep         a wire leg waits 30 s for its next",
        "               connection, up to 600 s old, at most 32",
        "  own key",
        f"    {KEY}",
    ]


def test_in_a_pipe_a_line_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert wrapped(TEXT) == TEXT
