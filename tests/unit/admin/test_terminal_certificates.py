"""Certificates in a status at a terminal, wide and narrow."""

from __future__ import annotations

import dataclasses

import pytest

from stcp_proxy.admin.certificate_schema import CertificateStatus, PeerCertificate
from stcp_proxy.admin.status_schema import Status
from stcp_proxy.admin.terminal_layout import ALL, Limits

from .test_terminal_table import STATUS, WIDTHS, shown, words_of

DAY = 86400.0
OWN = CertificateStatus(
    kind="certificate", name="(own)", subject="dns:db.prod.internal", issuer="CN=prod root", serial="7f3a", not_before=0.0,
    not_after=1000.0 + 30 * DAY, tunnels=["redis"], connections=3, may_go="no", why="its tunnels have no other",
)  # fmt: skip
ROOT = dataclasses.replace(
    OWN, kind="authority", name="prod", subject="CN=prod root", serial="01", not_after=1000.0 - 2 * DAY, overdue="it expired",
    connections=0, may_go="yes", why="it has expired",
)  # fmt: skip
LIST = dataclasses.replace(ROOT, kind="revocation list", serial="", not_after=None, overdue="")
PEER = PeerCertificate(
    name="spiffe://prod/ns/web/sa/app", authority="prod", serial="beef", not_after=1000.0 + DAY, tunnels=["redis"], connections=2
)


def with_certificates(*certificates: CertificateStatus, peers: tuple[PeerCertificate, ...] = (PEER,), others: int = 0) -> Status:
    return dataclasses.replace(
        STATUS, certificates=list(certificates), peer_certificates=list(peers), connections_of_others=others
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_name_authority_serial_end_and_connections(width: int) -> None:
    text = shown(with_certificates(OWN, ROOT, LIST), width=width)
    assert max(map(len, text.splitlines())) <= width
    plain = "".join(text.split())
    for words in (
        "(own)", "dns:db.prod.internal", "CN=prod root", "7f3a", "1970-01-31, in 30 d", "no: its tunnels have no other",
        "authority prod", "2 d ago", "yes: it has expired", "revocation list prod", "no end",
        "spiffe://prod/ns/web/sa/app", "beef", "1970-01-02, in 1 d",
    ):  # fmt: skip
        assert "".join(words.split()) in plain or width >= 110, words
    if width >= 200:
        for words in ("dns:db.prod.internal", "7f3a", "1970-01-31, in 30 d", "no: its tunnels have no other", "beef"):
            assert words in text


@pytest.mark.parametrize("width", WIDTHS)
def test_long_lists_are_counted(width: int) -> None:
    roots = [dataclasses.replace(ROOT, name=f"a{number}", overdue="") for number in range(40)]
    peers = tuple(dataclasses.replace(PEER, name=f"dns:host-{number}") for number in range(30))
    status = with_certificates(*roots, dataclasses.replace(roots[0], name="late", overdue="it ends"), OWN, peers=peers, others=70)
    text = words_of(shown(status, width=width))
    assert "and 37 more certificates: --all shows all" in text
    assert "and 25 more certificates: --all shows all" in text
    assert "and 70 more connections by further certificates" in text
    assert text.index("(own)") < text.index("late") < text.index("a0 ")
    full = words_of(shown(status, width=width, limits=ALL))
    assert "more certificates" not in full
    assert "dns:host-29" in full


def test_one_tunnel_has_its_certificates_alone() -> None:
    other = dataclasses.replace(OWN, subject="dns:other", tunnels=["web"])
    text = shown(
        with_certificates(OWN, other, peers=(PEER, dataclasses.replace(PEER, name="dns:web", tunnels=["web"]))), tunnel="redis"
    )
    assert "dns:other" not in text
    assert "dns:web" not in text
    assert "dns:db.prod.internal" in text
    assert PEER.name in text


def test_no_certificates_and_no_room_have_no_heading() -> None:
    assert "Certificates" not in shown(STATUS)
    assert "Certificates" not in shown(with_certificates(OWN), limits=Limits(keys=0))


def test_what_a_certificate_says_is_neither_markup_nor_moves_the_cursor() -> None:
    hostile = "[red]x[/red]\x1b[2J\r"
    status = with_certificates(
        dataclasses.replace(OWN, subject=hostile, issuer=hostile), peers=(dataclasses.replace(PEER, name=hostile),)
    )
    for width in (80, 160):
        text = shown(status, width=width)
        assert "[red]x[/red]" in text
        assert not set("\x1b\r") & set(text)
