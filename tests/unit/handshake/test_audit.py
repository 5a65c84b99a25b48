"""Audit mode of an access rule: whom it admits, whom never, and what a new rule covers."""

from __future__ import annotations

import time

import pytest
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth
from stcp_proxy.config.audit import AUDITED, Audit
from stcp_proxy.config.certificate_plan import Revoked, Trusted
from stcp_proxy.errors import (
    CertificateNotAllowed,
    CertificateRevoked,
    CredentialRefused,
    MalformedHandshake,
    StcpError,
    UnknownPeer,
)
from stcp_proxy.handshake.trust import Peer, Trust
from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.handshake import Credentials, Established, Initiator
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.wire import Suite

from .test_certified import APP, AUTHORITY, DB, HERE, meet, rule, trusted
from .two_sides import Ends

HOST, FRIEND, STRANGER, REVOKED = (PrivateKey.generate() for _ in range(4))
DAY = 86400.0


def audit(days: float = 1.0) -> Audit:
    return Audit(time.time() + days * DAY, frozenset([REVOKED.public]))


def keyed(mode: Audit | None, *peers: PrivateKey) -> Trust:
    return Trust.of(KeyAuth(HOST, {peer.public: "friend" for peer in peers or (FRIEND,)}, audit=mode))


def certified(mode: Audit | None, *allow: str, trust: Trusted | None = None) -> Trust:
    auth = rule(DB, *allow, trust=trust).certified
    assert auth is not None
    return Trust.of(KeyAuth(None, {}, certificates=auth.auth, audit=mode))


def call(trust: Trust, key: PrivateKey, suite: Suite) -> Established:
    """What the responder makes of message 1 of the owner of a key."""
    initiator = Initiator(suite, Credentials(KeyPair(key.secret)), remote_static=HOST.public.raw)
    answer = trust.responder((suite,)).receive(initiator.message_1())
    assert answer is not None
    return answer.established  # type: ignore[union-attr]


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
def test_an_unknown_key(suite: Suite) -> None:
    trust = keyed(audit())
    peer = trust.peer(call(trust, STRANGER, suite))
    assert peer == Peer(str(STRANGER.public), AUDITED, STRANGER.public.raw, HOST.public.raw, audited=True)
    assert peer.full_name == str(STRANGER.public)
    assert trust.peer(call(trust, FRIEND, suite)) == Peer("friend", "friend", FRIEND.public.raw, HOST.public.raw)


@pytest.mark.parametrize("key", [REVOKED, HOST], ids=["revoked", "own"])
def test_a_key_that_is_never_admitted(key: PrivateKey) -> None:
    with pytest.raises(UnknownPeer):
        call(keyed(audit()), key, Suite.HYBRID_KEYS)


@pytest.mark.parametrize("suite", [Suite.HYBRID_KEYS, Suite.CLASSIC_KEYS])
@pytest.mark.parametrize("key", [REVOKED, HOST, STRANGER], ids=["revoked", "own", "stranger"])
def test_a_second_form_of_a_key_is_never_admitted(key: PrivateKey, suite: Suite) -> None:
    """X25519 ignores the highest bit of a public key, and the list of revoked keys has the first form alone."""
    twin = KeyPair(key.secret)
    twin.public = twin.public[:-1] + bytes([twin.public[-1] | 0x80])  # type: ignore[misc]
    initiator = Initiator(suite, Credentials(twin), remote_static=HOST.public.raw)
    with pytest.raises(MalformedHandshake, match="second form"):
        keyed(audit()).responder((suite,)).receive(initiator.message_1())


@pytest.mark.parametrize("mode", [None, audit(days=-1)], ids=["enforced", "over"])
def test_without_audit_or_after_its_date(mode: Audit | None) -> None:
    with pytest.raises(UnknownPeer):
        call(keyed(mode), STRANGER, Suite.HYBRID_KEYS)
    call(keyed(mode), FRIEND, Suite.HYBRID_KEYS)


def test_the_date_counts_at_each_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses again without a new rule, and the connections that it admitted are no longer covered."""
    trust = keyed(audit(days=1.0))
    peer = trust.peer(call(trust, STRANGER, Suite.HYBRID_KEYS))
    assert trust.covers(trust, peer)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1.5 * DAY)
    with pytest.raises(UnknownPeer):
        call(trust, STRANGER, Suite.HYBRID_KEYS)
    assert not trust.covers(trust, peer)
    assert trust.covers(trust, trust.peer(call(trust, FRIEND, Suite.HYBRID_KEYS)))


def test_what_a_new_rule_covers() -> None:
    before = keyed(audit())
    stranger, friend = (before.peer(call(before, key, Suite.HYBRID_KEYS)) for key in (STRANGER, FRIEND))
    for after, covers_stranger, covers_friend in (
        (keyed(audit(days=2)), True, True),
        (keyed(None), False, True),
        (keyed(None, STRANGER), True, False),
        (keyed(audit(), STRANGER), True, True),
        (keyed(Audit(time.time() + DAY, frozenset([STRANGER.public]))), False, True),
        (before.remains([HOST.public, FRIEND.public, STRANGER.public], (None,), trusted()), False, True),
    ):
        assert (after.covers(before, stranger), after.covers(before, friend)) == (covers_stranger, covers_friend)


async def test_a_certificate_whose_names_no_rule_admits(autojump_clock: MockClock, ends: Ends) -> None:
    trust = certified(audit(), "dns:other")
    await meet(ends, HERE, trust)
    assert isinstance(ends.responder.result, tuple)
    peer = trust.peer(ends.responder.result[1])
    assert (peer.name, peer.rule, peer.audited, peer.names) == ("dns:app", AUDITED, True, ("dns:app",))
    for after, covers in (
        (certified(audit(), "dns:third"), True),
        (certified(None, "dns:third"), False),
        (certified(audit(days=-1), "dns:third"), False),
        (certified(None, "dns:app"), True),
        (certified(audit(), "dns:third", trust=trusted(revoked=serial())), False),
        (trust.remains((), (None,), trusted()), False),
    ):
        assert after.covers(trust, peer) is covers


def serial() -> Revoked:
    return Revoked((), (("prod", APP.certificate.serial_number),))


@pytest.mark.parametrize(
    ("there", "refusal"),
    [
        (certified(None, "dns:other"), CertificateNotAllowed),
        (certified(audit(days=-1), "dns:other"), CertificateNotAllowed),
        (certified(audit(), "dns:other", trust=trusted(revoked=serial())), CertificateRevoked),
        (certified(audit(), "dns:other", trust=trusted(type(AUTHORITY)())), CredentialRefused),
    ],
    ids=["enforced", "over", "revoked", "unknown authority"],
)
async def test_a_certificate_that_is_refused(
    autojump_clock: MockClock, ends: Ends, there: Trust, refusal: type[StcpError]
) -> None:
    await meet(ends, HERE, there)
    assert isinstance(ends.responder.error, refusal)
