"""Log lines as text: the order of their fields, their width, and what foreign text can do in them."""

from __future__ import annotations

from typing import Any

import pytest

from stcp_proxy.logs.text import TextRenderer, columns

REFUSED: dict[str, Any] = {
    "client": "127.0.0.1:52258", "seconds": 0.029, "why": "cannot reach 127.0.0.1:17999: connection refused",
    "channel": "d5bc62308a9baeb0", "peer": "app", "tunnel": "web", "event": "connection refused", "level": "warning",
    "remedy": "check that the program is running and listens there", "timestamp": "2026-11-29T01:31:00.129971Z",
}  # fmt: skip


def rendered(event: dict[str, Any], *, terminal: bool = False, width: int = 80, colours: bool = False) -> str:
    return TextRenderer(terminal=terminal, width=lambda: width, colours=colours)(None, "warning", dict(event))


def test_in_a_file_it_is_one_line_with_the_answer_first() -> None:
    assert rendered(REFUSED) == (
        "2026-11-29T01:31:00.129971Z warning connection refused tunnel=web peer=app "
        "why='cannot reach 127.0.0.1:17999: connection refused' remedy='check that the program is running and listens there' "
        "client=127.0.0.1:52258 seconds=0.029 channel=d5bc62308a9baeb0"
    )


def test_on_a_narrow_terminal_it_is_wrapped() -> None:
    assert rendered(REFUSED, terminal=True) == (
        "01:31:00Z warning connection refused tunnel=web peer=app\n"
        "    why: cannot reach 127.0.0.1:17999: connection refused\n"
        "    remedy: check that the program is running and listens there\n"
        "    client=127.0.0.1:52258 seconds=0.029 channel=d5bc62308a9baeb0"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200, 500])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = rendered(REFUSED, terminal=True, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.replace("\n", " ").split()[:6] == ["01:31:00Z", "warning", "connection", "refused", "tunnel=web", "peer=app"]
    assert text.index("why") < text.index("remedy") < text.index("client")
    assert len(text.splitlines()) == 1 or width < 500


@pytest.mark.parametrize("terminal", [False, True])
def test_foreign_text_neither_begins_a_line_nor_moves_the_cursor(*, terminal: bool) -> None:
    text = rendered(REFUSED | {"why": "a\nb\r\x1b[2J", "peer": "x y='z'\n", "event": "e\n"}, terminal=terminal)
    assert not set("\r\x1b") & set(text)
    assert all(line.startswith(("    ", "01:31", "2026")) for line in text.splitlines())


def test_values_that_are_not_text() -> None:
    found = rendered({"event": "stopped", "level": "info", "cut_off": 0, "to": ["a:1", "b c"], "none": None, "empty": ""})
    assert found == "info    stopped cut_off=0 to=['a:1', 'b c'] none=None empty=''"


def test_a_traceback_follows() -> None:
    assert rendered(REFUSED | {"exception": "Traceback\n  x"}).endswith("\nTraceback\n  x")


def test_colours() -> None:
    text = rendered(REFUSED, terminal=True, colours=True)
    assert "\x1b[33mwarning" in text
    assert "\x1b[1mconnection refused\x1b[0m" in text


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in TextRenderer(terminal=True, width=lambda: 80)(None, "warning", dict(REFUSED))
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b" in TextRenderer(terminal=True, width=lambda: 80)(None, "warning", dict(REFUSED))


def test_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    assert columns() == 72
    for nonsense in ("", "x", "0", "-5"):
        monkeypatch.setenv("COLUMNS", nonsense)
        assert columns() > 0
