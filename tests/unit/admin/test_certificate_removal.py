"""Can this certificate go?"""

from __future__ import annotations

from typing import Any

import pytest

from stcp_proxy.admin.certificate_removal import judge
from stcp_proxy.admin.certificate_schema import AuthorityUse, CertificateStatus

from .make_report import NOW, certificate


def root(key_id: str, **fields: Any) -> CertificateStatus:
    return certificate(**{"kind": "authority", "name": "prod", "key_id": key_id, "serial": key_id, "last_use": NOW - 9} | fields)


def use(key_id: str, first: float, last: float, *, peer: str = "app", left: float = 60.0) -> AuthorityUse:
    return AuthorityUse(key_id=key_id, peer=peer, first=first, last=last, not_after=NOW + left)


def answer(
    old: CertificateStatus, *others: CertificateStatus, uses: tuple[AuthorityUse, ...] = (), forgotten: int = 0
) -> tuple[str, str]:
    found = judge([old, *others], uses, {"old": forgotten} if forgotten else {}, NOW)[0]
    return found.may_go, found.why


GONE_OVER = ("yes", "every peer has come with another authority since, or its certificate has expired")
CASES: dict[str, tuple[tuple[AuthorityUse, ...], tuple[str, str]]] = {
    "gone over": ((use("old", 1, 5), use("new", 6, 9)), GONE_OVER),
    "not gone over": ((use("old", 1, 5),), ("no", "not seen with another authority since: app")),
    "gone back": ((use("old", 1, 9), use("new", 6, 8)), ("no", "not seen with another authority since: app")),
    "by turns": (
        (use("old", 1, 7), use("new", 6, 9)),
        ("unknown", "seen with this one and with another by turns, so several hosts may share the name: app"),
    ),
    "expired certificate of a peer": ((use("old", 1, 5, left=-1.0),), GONE_OVER),
    "many": (
        tuple(use("old", 1, 5, peer=f"p{number}") for number in range(5)),
        ("no", "not seen with another authority since: p0, p1, p2 and 2 more"),
    ),
    "an authority that left the file is no evidence": (
        (use("old", 1, 5), use("removed", 6, 9)),
        ("no", "not seen with another authority since: app"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_authority_that_another_replaces(case: str) -> None:
    uses, says = CASES[case]
    assert answer(root("old"), root("new"), uses=uses) == says


@pytest.mark.parametrize(
    ("old", "others", "forgotten", "says"),
    [
        ({}, [], 0, ("no", "it is the only one")),
        ({}, [root("new", not_after=NOW - 1)], 0, ("no", "it is the only one")),
        ({"connections": 2}, [root("new")], 0, ("no", "open connections: 2")),
        ({"connections": 2, "not_after": NOW - 1}, [root("new")], 0, ("no", "open connections: 2")),
        ({"not_after": NOW - 1}, [root("new")], 0, ("yes", "it has expired")),
        ({"connections": 2}, [root("old", not_after=NOW + 99)], 0, ("yes", "a later certificate of the same key is in the file")),
        ({"last_use": None}, [root("new")], 0, ("unknown", "no peer has come with it since the start")),
        ({}, [root("new")], 1234, ("unknown", "more peers came with it than are remembered: 1,234 are not")),
    ],
)
def test_an_authority_without_peers(
    old: dict[str, Any], others: list[CertificateStatus], forgotten: int, says: tuple[str, str]
) -> None:
    assert answer(root("old", **old), *others, forgotten=forgotten) == says


def test_a_key_of_two_authorities_is_not_one_authority() -> None:
    """Names may be limited for each authority."""
    other = root("old", name="other", not_after=NOW + 99)
    assert answer(root("old", connections=1), other, root("new"))[0] == "no"


@pytest.mark.parametrize(("kind", "why"), [("certificate", "have no other"), ("revocation list", "be admitted again")])
def test_what_is_always_needed(kind: str, why: str) -> None:
    may_go, words = answer(certificate(kind=kind), root("new"))
    assert may_go == "no"
    assert why in words
