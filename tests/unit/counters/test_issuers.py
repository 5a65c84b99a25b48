"""Which authority vouched for which peer: first and last handshake, and a bounded memory."""

from __future__ import annotations

from stcp_proxy.counters.issuers import MAX_USES, Issuers, IssuerUse


def test_first_and_last_handshake_and_the_latest_end() -> None:
    issuers = Issuers()
    issuers.note(b"old", "app", 500.0, 10.0)
    issuers.note(b"new", "app", 900.0, 20.0)
    issuers.note(b"old", "app", 400.0, 30.0)
    assert list(issuers) == [(b"new", "app", IssuerUse(20.0, 20.0, 900.0)), (b"old", "app", IssuerUse(10.0, 30.0, 500.0))]


def test_the_memory_is_bounded_and_says_what_it_has_forgotten() -> None:
    issuers = Issuers()
    for number in range(MAX_USES):
        issuers.note(b"old", f"p{number}", 500.0, float(number))
    issuers.note(b"old", "p0", 500.0, 1e6)
    issuers.note(b"new", "another", 500.0, 1e6)
    peers = [peer for _, peer, _ in issuers]
    assert len(peers) == MAX_USES
    assert "p1" not in peers
    assert peers[-2:] == ["p0", "another"]
    assert issuers.forgotten == {b"old": 1}
