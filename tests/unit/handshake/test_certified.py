"""The handshake by certificates over memory streams, and the rule that decides it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness.certificates import DAY, Leaf, TestAuthority
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth
from stcp_proxy.config.certificate_plan import (
    AuthorityPlan,
    CertificateAuth,
    CertificateKey,
    Encoded,
    Facts,
    OwnCertificate,
    Revoked,
    Trusted,
)
from stcp_proxy.errors import CertificateNotAllowed, HandshakeClosed, RevocationListOverdue, SuiteRefused
from stcp_proxy.handshake import exchange
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.handshake.trust import Trust
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import FrameType, Suite

from .two_sides import Ends, make_initiator, part

AUTHORITY = TestAuthority()
FACTS = Facts("dns:x", "1", 0.0, time.time() + 86400.0)
SUITES = (Suite.HYBRID_KEYS, Suite.HYBRID_CERTIFICATES)


def trusted(authority: TestAuthority = AUTHORITY, revoked: Revoked = Revoked()) -> Trusted:  # noqa: B008  (frozen)
    return Trusted((AuthorityPlan("prod", (Encoded(authority.root.public_bytes(Encoding.DER), FACTS),)),), revoked)


def rule(leaf: Leaf, *allow: str, trust: Trusted | None = None) -> Trust:
    der = leaf.certificate.public_bytes(Encoding.DER)
    key = leaf.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    own = OwnCertificate((der,), CertificateKey(key), (), FACTS)
    return Trust.of(KeyAuth(None, {}, certificates=CertificateAuth(own, trust or trusted(), allow)))


DB, APP = AUTHORITY.issue("dns:db"), AUTHORITY.issue("dns:app")
HERE, THERE = rule(APP, "dns:db"), rule(DB, "dns:a*")


async def meet(ends: Ends, here: Trust, there: Trust, *, opens_at_once: bool = False) -> None:
    assert here.certified is not None
    initiator = here.certified.initiator()

    async def initiates() -> Channel:
        channel = await exchange.initiate(ends.left, initiator, opens_at_once=opens_at_once)
        if opens_at_once:
            await opens(ends, channel)
        return channel

    async def responds() -> object:
        try:
            return await exchange.respond(ends.right, there.responder(SUITES))
        except BaseException:
            await ends.right.aclose()
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(part, initiates, ends.initiator)
        nursery.start_soon(part, responds, ends.responder)


async def opens(ends: Ends, channel: Channel) -> None:
    await exchange.open_channel(ends.left, channel, Opening(service="db"), lambda: b"hello")


@pytest.mark.parametrize("opens_at_once", [False, True])
async def test_both_sides_know_the_other(autojump_clock: MockClock, ends: Ends, opens_at_once: bool) -> None:
    await meet(ends, HERE, THERE, opens_at_once=opens_at_once)
    assert isinstance(ends.initiator.result, Channel)
    assert isinstance(ends.responder.result, tuple)
    channel, established = ends.responder.result
    peer = THERE.peer(established)
    assert (peer.name, peer.rule, peer.full_name, peer.names) == ("dns:app", "dns:a*", "dns:app", ("dns:app",))
    assert (peer.key, peer.own) == (None, None)  # fresh at each start of a process: no names for logs and counts
    assert HERE.peer(ends.initiator.result.established).name == "dns:db"
    if not opens_at_once:
        await opens(ends, ends.initiator.result)
    assert (await exchange.read_open(ends.right, channel)).service == "db"
    assert await channel.read_frame(ends.right) == (FrameType.DATA, b"hello")


async def test_a_refused_initiator_learns_where_to_look(autojump_clock: MockClock, ends: Ends) -> None:
    await meet(ends, HERE, rule(DB, "dns:other"))
    assert isinstance(ends.responder.error, CertificateNotAllowed)
    assert "dns:app (serial" in ends.responder.error.what
    assert isinstance(ends.initiator.result, Channel)
    with pytest.raises(HandshakeClosed, match="this side's certificate: its log says why"):
        await exchange.read_answer(ends.left, ends.initiator.result)


@pytest.mark.parametrize("refuses", [True, False])
async def test_an_overdue_revocation_list(autojump_clock: MockClock, ends: Ends, tmp_path: Path, refuses: bool) -> None:
    """A list of an hour ago. Its entries count in both cases; here it has none."""
    path = AUTHORITY.revoke(tmp_path / "ca.crl", next_update=-DAY / 24)
    der = x509.load_pem_x509_crl(path.read_bytes()).public_bytes(Encoding.DER)
    lists = (Encoded(der, dataclasses.replace(FACTS, not_after=time.time() - 3600)),)
    (prod,) = trusted().authorities
    strict = Trusted((dataclasses.replace(prod, lists=lists, refuses_overdue=refuses),))
    await meet(ends, HERE, rule(DB, "dns:a*", trust=strict))
    assert isinstance(ends.responder.error, RevocationListOverdue) is refuses
    assert (ends.responder.error is None) is not refuses


async def test_a_listener_for_certificates_alone_refuses_keys(autojump_clock: MockClock, ends: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(part, lambda: exchange.respond(ends.right, THERE.responder(SUITES)), ends.responder)
        await ends.left.send_all(make_initiator(Suite.HYBRID_KEYS).message_1())
    assert isinstance(ends.responder.error, SuiteRefused)
    assert "this side allows 5" in ends.responder.error.what


async def test_what_a_new_rule_covers(autojump_clock: MockClock, ends: Ends) -> None:
    await meet(ends, HERE, THERE)
    assert isinstance(ends.responder.result, tuple)
    peer = THERE.peer(ends.responder.result[1])
    serials = ((("prod", APP.certificate.serial_number),),)
    for name, after, stays in (
        ("another own certificate", rule(AUTHORITY.issue("dns:db"), "dns:app"), True),
        ("another pattern", rule(DB, "dns:b*"), False),
        ("another authority", rule(DB, "dns:app", trust=trusted(TestAuthority())), False),
        ("a revoked serial", rule(DB, "dns:app", trust=trusted(revoked=Revoked((), *serials))), False),
        ("keys alone", Trust(dataclasses.replace(THERE.credentials), {}, THERE.choice), False),
        ("a removed tunnel", THERE.remains((), (None,), trusted()), True),
        ("a removed tunnel and authority", THERE.remains((), (None,), Trusted()), False),
    ):
        assert after.covers(THERE, peer) is stays, name


def test_one_verifier_and_one_identity_for_all_tunnels() -> None:
    """So a peer is verified once, and a reload of something else forgets nobody."""
    one, other = rule(DB, "dns:a").certified, rule(DB, "dns:b").certified
    assert one is not None
    assert other is not None
    assert one._verifier is other._verifier
    assert one._identity is other._identity
