"""What of somebody's input a message may show."""

from __future__ import annotations

import pytest

from stcp_proxy.redact import shown, without_keys


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("db1:7443", "'db1:7443'"),
        (5, "5"),
        ("a\nb\x1b[31m", "'a\\nb\\x1b[31m'"),
        ("x" * 30 + " " + "y " * 200, "'" + ("x" * 30 + " " + "y " * 200)[:120] + "…'"),
        ("stcp-key:AAAA", "(not shown, it may be a key)"),
        ("STCP-PSK:AAAA", "(not shown, it may be a key)"),
        ("A" * 43 + "=", "(not shown, it may be a key)"),
        (["stcp-key:AAAA"], "(not shown, it may be a key)"),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


def test_without_keys() -> None:
    assert without_keys("found 'stcp-key:AAAA+/=' and\tmore") == "found '…' and\\tmore"
