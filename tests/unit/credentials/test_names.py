"""Patterns for names of certificates: what each matches, and which texts are none."""

from __future__ import annotations

import pytest
from cryptography import x509

from stcp_proxy.credentials.certificate import names_of
from stcp_proxy.credentials.names import NamePattern

from .issue import make, uri

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


@pytest.mark.parametrize(
    "strange",
    [
        # The Kelvin sign U+212A: `str.lower` makes a k of it. An authority may issue it to somebody else than "backup".
        x509.DNSName._init_without_validation("bac\u212aup.prod"),
        x509.UniformResourceIdentifier._init_without_validation("spiffe://bac\u212aup/app"),
        x509.UniformResourceIdentifier("dns://backup.prod"),  # a URI that would look like a DNS name
        x509.UniformResourceIdentifier("spiffe://prod/public/../backup"),
        x509.UniformResourceIdentifier("spiffe://prod/public/.."),
        x509.UniformResourceIdentifier("spiffe://prod/./backup"),
        x509.UniformResourceIdentifier("spiffe://prod/backup\0"),
        # A reader may decode these first, and then resolve or cut what comes out.
        x509.UniformResourceIdentifier("spiffe://prod/public/%2e%2e/backup"),
        x509.UniformResourceIdentifier("spiffe://prod/public/.%2E/backup"),
        x509.UniformResourceIdentifier("spiffe://prod/public%2e"),
        x509.UniformResourceIdentifier("spiffe://prod/public%2fbackup"),
        x509.UniformResourceIdentifier("spiffe://prod/public%2F..%2Fbackup"),
        x509.UniformResourceIdentifier("spiffe://prod/backup%00"),
        # A bare percent sign is no URI.
        x509.UniformResourceIdentifier("spiffe://prod/100%"),
        x509.UniformResourceIdentifier("spiffe://prod/%/backup"),
        x509.UniformResourceIdentifier("spiffe://prod/%2/backup"),
        x509.UniformResourceIdentifier("spiffe://prod/%2x"),
        x509.UniformResourceIdentifier("spiffe://prod/%%2e"),
        x509.DNSName("backup.prod."),
        x509.UniformResourceIdentifier("spiffe://prod./backup"),
        x509.DNSName("*.prod"),
    ],
    ids=lambda name: ascii(name.value),
)
def test_strange_names_of_a_certificate_are_left_out(strange: x509.GeneralName) -> None:
    good = (x509.DNSName("APP.prod"), uri("SPIFFE://Prod/..a/App"), uri("spiffe://prod/a%20b/%2d%C3%A4%25"))
    certificate = make("p256").issue(san=(strange, *good)).certificate
    assert names_of(certificate) == ("dns:app.prod", "spiffe://prod/..a/App", "spiffe://prod/a%20b/%2d%C3%A4%25")
