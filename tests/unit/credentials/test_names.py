"""Patterns for names of certificates: what each matches, and which texts are none."""

from __future__ import annotations

import pytest

from stcp_proxy.credentials.names import NamePattern

CASES = [
    (
        "dns:db.prod.internal",
        ["dns:db.prod.internal"],
        ["dns:db.prod.internal.evil", "dns:xdb.prod.internal", "dns:dbXprod.internal"],
    ),
    ("dns:*.x", ["dns:a.x", "dns:a-b.x"], ["dns:x", "dns:.x", "dns:a.b.x", "dns:a.y", "spiffe://a.x"]),
    ("dns:app-*.*.x", ["dns:app-7.prod.x"], ["dns:app-.prod.x", "dns:app-7.x", "dns:app-7.a.b.x"]),
    ("spiffe://a/**", ["spiffe://a/b", "spiffe://a/b/c/d"], ["spiffe://a", "spiffe://ab/c", "spiffe://a.b/c", "dns:a"]),
    ("spiffe://prod/ns/*/sa/app", ["spiffe://prod/ns/web/sa/app"], ["spiffe://prod/ns/a/b/sa/app", "spiffe://prod/ns//sa/app"]),
    ("spiffe://prod/**/app", ["spiffe://prod/a/app", "spiffe://prod/a/b/app"], ["spiffe://prod/app", "spiffe://prod/a/apps"]),
    ("spiffe://*/app", ["spiffe://prod/app"], ["spiffe://a.b/app", "spiffe://prod/x/app"]),
    ("spiffe://prod", ["spiffe://prod"], ["spiffe://prod/", "spiffe://prod/a"]),
]


@pytest.mark.parametrize(("text", "inside", "outside"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_pattern(text: str, inside: list[str], outside: list[str]) -> None:
    pattern = NamePattern(text)
    assert [name for name in inside if not pattern.matches(name)] == []
    assert [name for name in [*outside, *(name + "\n" for name in inside)] if pattern.matches(name)] == []


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "dns:", "dns:**", "dns:**.x", "dns:a..b", "dns:A.b", "db.prod", "cn:db", "spiffe:", "spiffe://", "spiffe:///a",
        "spiffe://**/a", "spiffe://a/b**", "spiffe://a/***", "spiffe://A/b", "spiffe://a/b?c", "spiffe://a/b#c", "spiffe://u@a/b",
        "spiffe://a//b", "spiffe://a/b/", "dns:a b", "dns:a\n",
    ],
)  # fmt: skip
def test_text_that_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="no pattern"):
        NamePattern(text)
