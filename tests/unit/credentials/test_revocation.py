"""Revoked certificates are refused, a kept leg is checked again, and the memory of a verifier is bounded."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from stcp_proxy import errors
from stcp_proxy.credentials.authority import key_bytes
from stcp_proxy.credentials.path import LEEWAY
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.protocol.wire import Role

from .issue import (
    DAY,
    NOW,
    SECONDS,
    STATIC,
    Issued,
    credential,
    make,
    trusted,
    verify,
)

INITIATOR, RESPONDER = Role.INITIATOR, Role.RESPONDER
BOTH_VERIFIERS = pytest.mark.parametrize("kind", ["p256", "ed25519"])
"""`cryptography` builds the chains of the first, this project those of the second."""


# -- revocation ------------------------------------------------------------------------------------------------------------------


def revocation_list(issuer: Issued, *serials: int, signer: Issued | None = None, **kwargs: Any) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + kwargs.pop("next_update", DAY))
    )
    for extension in kwargs.pop("extensions", ()):
        builder = builder.add_extension(extension, critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    key = (signer or issuer).key
    return builder.sign(key, None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256())


@BOTH_VERIFIERS
@pytest.mark.parametrize("next_update", [DAY, -DAY / 24], ids=["current", "overdue"])
def test_revoked(kind: str, next_update: datetime.timedelta) -> None:
    root = make(kind, name="root")
    middle = root.authority(kind, name="middle")
    leaf, sibling = middle.issue(kind), middle.issue(kind)
    for revoked in (leaf.certificate, middle.certificate):
        issuer = middle if revoked is leaf.certificate else root
        listed = revocation_list(issuer, revoked.serial_number, next_update=next_update)
        for revocations in (
            Revocations(keys=[key_bytes(revoked)]),
            Revocations(issued=[(key_bytes(issuer.certificate), revoked.serial_number)]),
            Revocations(lists=[revocation_list(root), listed]),
        ):
            verifier = Verifier([trusted(root)], revocations)
            with pytest.raises(errors.CertificateRevoked, match=r"app\.prod\.internal .* is revoked"):
                verify(verifier, leaf)
            if revoked is leaf.certificate:
                verify(verifier, sibling)


def test_revoked_key_of_an_authority() -> None:
    root = make("p256", name="root")
    for leaf in (root.issue(), root.authority(name="middle").issue()):
        with pytest.raises(errors.CertificateRevoked):
            verify(Verifier([trusted(root)], Revocations(keys=[key_bytes(root.certificate)])), leaf)


def test_revoked_serial_under_the_new_name_of_an_authority() -> None:
    root = make("p256")
    verified = verify(Verifier([trusted(root, name="old")]), root.issue(serial=4711))
    later = Verifier([trusted(root, name="new")], Revocations(under=[("new", 4711)]))
    with pytest.raises(errors.CertificateRevoked):
        later.check_again(verified, SECONDS)


BOTH_ORDERS = pytest.mark.parametrize("order", [("old", "new"), ("new", "old")], ids="-".join)
"""The first authority of a file that vouches for a chain is the peer's authority."""
SERIALS = pytest.mark.parametrize("serial", [4711, 1 << 56, None], ids=["small", "eight bytes", "random"])


def cross(kind: str, above: Issued, below: Issued) -> x509.Certificate:
    """The certificate of an authority for the key of another one, which has issued itself or has an issuer."""
    return make(kind, issuer=above, ca=True, key=below.key, subject=below.certificate.subject).certificate


@SERIALS
@BOTH_ORDERS
@BOTH_VERIFIERS
def test_revoked_serial_counts_below_a_cross_certificate(kind: str, order: tuple[str, str], serial: int | None) -> None:
    """The peer chooses which certificates it presents, and so the authority above its own."""
    old, new = make(kind, name="old root"), make(kind, name="new root")
    leaf = new.issue(kind, serial=serial)
    presented = ((), (cross(kind, old, new),))
    authorities = {"old": trusted(old, name="old"), "new": trusted(new, name="new")}
    revocations = Revocations(under=[("new", leaf.certificate.serial_number)])
    before, after = (Verifier([authorities[name] for name in order], each) for each in (None, revocations))
    for intermediates in presented:
        verified = verify(before, leaf, intermediates=intermediates)
        assert verified.authority == (order[0] if intermediates else "new")
        with pytest.raises(errors.CertificateRevoked, match="is revoked"):
            verify(after, leaf, intermediates=intermediates)
        with pytest.raises(errors.CertificateRevoked):
            after.check_trust(verified)
        verify(after, new.issue(kind), intermediates=intermediates)


@BOTH_ORDERS
@BOTH_VERIFIERS
def test_revoked_random_serial_counts_below_a_cross_certificate_of_an_intermediate(kind: str, order: tuple[str, str]) -> None:
    """The root of the authority that revoked the certificate is not in the chain. A random number is enough."""
    old, new = make(kind, name="old root"), make(kind, name="new root")
    middle = new.authority(kind, name="middle")
    leaf = middle.issue(kind)
    authorities = {"old": trusted(old, name="old"), "new": trusted(new, name="new")}
    for revoked in (leaf.certificate, middle.certificate):
        revocations = Revocations(under=[("new", revoked.serial_number)])
        before, after = (Verifier([authorities[name] for name in order], each) for each in (None, revocations))
        with pytest.raises(errors.CertificateRevoked):
            verify(after, leaf)
        # The certificate of the intermediate is another one here, so a revocation of the first says nothing about it.
        crossed = (cross(kind, old, middle),)
        verified = verify(before, leaf, intermediates=crossed)
        assert verified.authority == "old"
        if revoked is middle.certificate:
            verify(after, leaf, intermediates=crossed)
            continue
        with pytest.raises(errors.CertificateRevoked):
            verify(after, leaf, intermediates=crossed)
        with pytest.raises(errors.CertificateRevoked):
            after.check_trust(verified)


@BOTH_ORDERS
@BOTH_VERIFIERS
def test_small_serial_of_an_authority_outside_the_chain_is_not_revoked(kind: str, order: tuple[str, str]) -> None:
    """Authorities that count their certificates use the same numbers."""
    old, new = make(kind, name="old root"), make(kind, name="new root")
    authorities = {"old": trusted(old, name="old"), "new": trusted(new, name="new")}
    for serial in (4711, (1 << 56) - 1):
        verifier = Verifier([authorities[name] for name in order], Revocations(under=[("old", serial), ("gone", serial)]))
        verifier.check_trust(verify(verifier, new.issue(kind, serial=serial)))
        with pytest.raises(errors.CertificateRevoked):
            verify(verifier, old.issue(kind, serial=serial))


@BOTH_VERIFIERS
def test_serial_of_a_certificate_above_the_revoked_authority_is_not_revoked(kind: str) -> None:
    """`new` issued the leaf, `old` the cross certificate: that one is not a certificate of `new`."""
    old, new = make(kind, name="old root"), make(kind, name="new root")
    leaf = new.issue(kind)
    crossed = make(kind, issuer=old, ca=True, key=new.key, subject=new.certificate.subject, serial=4711).certificate
    authorities = [trusted(old, name="old"), trusted(new, name="new")]
    verify(Verifier(authorities, Revocations(under=[("new", 4711)])), leaf, intermediates=(crossed,))
    with pytest.raises(errors.CertificateRevoked):
        verify(Verifier(authorities, Revocations(under=[("old", 4711)])), leaf, intermediates=(crossed,))


@BOTH_ORDERS
@BOTH_VERIFIERS
def test_overdue_list_of_an_authority_below_another_refuses(kind: str, order: tuple[str, str]) -> None:
    """The peer's authority has no list that is overdue, and the authority whose key signed its certificate has one."""
    old, new = make(kind, name="old root"), make(kind, name="new root")
    leaf, crossed = new.issue(kind), (cross(kind, old, new),)
    fresh = {"old": trusted(old, name="old"), "new": trusted(new, name="new")}
    overdue = fresh | {"new": dataclasses.replace(fresh["new"], vouches_until=SECONDS - LEEWAY - 1)}
    verified = verify(Verifier([fresh[name] for name in order]), leaf, intermediates=crossed)
    verifier = Verifier([overdue[name] for name in order])
    for intermediates in ((), crossed):
        with pytest.raises(errors.RevocationListOverdue, match="'new' should have been replaced"):
            verify(verifier, leaf, intermediates=intermediates)
    with pytest.raises(errors.RevocationListOverdue):
        verifier.check_again(verified, SECONDS)
    verify(verifier, old.issue(kind))


def test_serial_of_another_issuer_is_not_revoked() -> None:
    root, other = make("p256"), make("p256")
    leaf = root.issue()
    serial = leaf.certificate.serial_number
    for revocations in (
        Revocations(issued=[(key_bytes(other.certificate), serial)]),
        Revocations(lists=[revocation_list(other, serial)]),
        Revocations(lists=[revocation_list(root, serial, signer=other)]),
    ):
        verify(Verifier([trusted(root)], revocations), leaf)


def test_overdue_list_refuses_all_where_this_side_insists() -> None:
    """A remembered credential too; after the leeway of clocks; connections that are open go on."""
    root = make("p256")
    leaf = root.issue()
    due = SECONDS + 100
    verifier = Verifier([dataclasses.replace(trusted(root), vouches_until=due)], Revocations(lists=[revocation_list(root)]))
    verified = verify(verifier, leaf, now=due + LEEWAY)
    for other in (leaf, root.issue()):
        with pytest.raises(errors.RevocationListOverdue, match="'prod' should have been replaced at 2026-11-28 12:01:40 UTC"):
            verify(verifier, other, now=due + LEEWAY + 1)
    with pytest.raises(errors.RevocationListOverdue):
        verifier.check_again(verified, due + LEEWAY + 1)
    verifier.check_trust(verified)


def test_delta_list_is_refused() -> None:
    with pytest.raises(ValueError, match="critical extension"):
        Revocations(lists=[revocation_list(make("p256"), 1, extensions=[x509.DeltaCRLIndicator(1)])])


# -- later checks and memory ------------------------------------------------------------------------------------------------


def test_check_again_on_a_kept_leg() -> None:
    root = make("p256")
    leaf = root.issue()
    verifier = Verifier([trusted(root)])
    verified = verify(verifier, leaf)
    verifier.check_again(verified, SECONDS + 3600)
    with pytest.raises(errors.CertificateExpired):
        verifier.check_again(verified, SECONDS + 86400 + 61)
    with pytest.raises(errors.UnknownAuthority, match="no longer"):
        Verifier([trusted(make("p256"))]).check_again(verified, SECONDS)
    with pytest.raises(errors.CertificateRevoked):
        Verifier([trusted(root)], Revocations(keys=[key_bytes(leaf.certificate)])).check_again(verified, SECONDS)
    with pytest.raises(errors.CertificateNameRefused):
        Verifier([trusted(root, names=("dns:other",))]).check_again(verified, SECONDS)


def test_remembered_credential_expires() -> None:
    root = make("p256")
    verifier = Verifier([trusted(root)])
    good = credential(root.issue())
    first = verifier.verify(good, STATIC, role=INITIATOR, now=SECONDS)
    assert verifier.verify(good, STATIC, role=INITIATOR, now=SECONDS + 60) is first
    with pytest.raises(errors.CertificateExpired):
        verifier.verify(good, STATIC, role=INITIATOR, now=SECONDS + 86400 + 61)
    assert len(verifier) == 0


def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    root = make("ed25519")
    verifier = Verifier([trusted(root)], remember=3)
    credentials = [credential(root.issue("ed25519")) for _ in range(5)]
    first = verifier.verify(credentials[0], STATIC, role=INITIATOR, now=SECONDS)
    for each in credentials[1:]:
        verifier.verify(each, STATIC, role=INITIATOR, now=SECONDS)
        assert verifier.verify(credentials[0], STATIC, role=INITIATOR, now=SECONDS) is first
    assert len(verifier) == 3


def test_a_remembered_credential_takes_less_than_2_kib() -> None:
    """RSA of 4096 bits has the largest key, and the names have their largest size."""
    import tracemalloc

    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    root = make("p256")
    key = generate_private_key(65537, 4096)
    names = tuple(x509.DNSName(f"host-{n:02}.some.where.prod.internal") for n in range(20))
    credentials = [credential(root.issue("rsa", key=key, san=names)) for _ in range(30)]
    verifier = Verifier([trusted(root)], remember=30)
    verifier.verify(credentials[0], STATIC, role=INITIATOR, now=SECONDS)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for each in credentials[1:]:
            verifier.verify(each, STATIC, role=INITIATOR, now=SECONDS)
        used = (tracemalloc.get_traced_memory()[0] - before) / (len(credentials) - 1)
    finally:
        tracemalloc.stop()
    assert len(verifier) == 30
    assert used < 2048
