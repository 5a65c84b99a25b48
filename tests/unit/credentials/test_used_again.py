"""What serves several verifications changes none of them: the library's verifier of a minute, and the bytes of a credential."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from stcp_proxy import errors
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.protocol.wire import Role

from .issue import NOW, SECONDS, STATIC, credential, make, trusted, verify

BOTH_VERIFIERS = pytest.mark.parametrize("kind", ["p256", "ed25519"])
"""`cryptography` builds the chains of the first, this project those of the second."""


@BOTH_VERIFIERS
def test_verifier_of_a_minute_never_outlives_a_certificate(kind: str) -> None:
    """The library's verifier is used again for a minute. The time judges what begins or ends in it."""
    minute = SECONDS - SECONDS % 60
    second = datetime.timedelta(seconds=1)
    at = datetime.datetime.fromtimestamp(minute, datetime.UTC) - NOW
    root = make(kind)
    verifier = Verifier([trusted(root)])
    verify(verifier, root.issue(kind), now=minute + 30)
    young = root.issue(kind, start=at + 20 * second)
    verify(verifier, young, now=minute + 30)
    old = root.issue(kind, end=at - 40 * second)
    verify(verifier, old, now=minute + 10)
    with pytest.raises(errors.CertificateExpired):
        verify(verifier, root.issue(kind, end=at - 40 * second), now=minute + 30)
    with pytest.raises(errors.CertificateNotYetValid):
        verify(verifier, root.issue(kind, start=at + 100 * second), now=minute + 30)
    for rooted in ({"start": at + 20 * second}, {"end": at + 40 * second}):
        other = make(kind, **rooted)
        verify(Verifier([trusted(other)]), other.issue(kind), now=minute + 30)


def test_credential_that_was_read_is_remembered_by_its_own_bytes() -> None:
    """`encode` gives the bytes that were read, and a changed credential has its own."""
    root = make("ed25519")
    leaf = root.issue("ed25519")
    good = credential(leaf)
    verifier = Verifier([trusted(root)])
    verifier.verify(good, STATIC, role=Role.INITIATOR, now=SECONDS)
    for changed in (
        dataclasses.replace(good, signature=bytes(64)),
        dataclasses.replace(good, not_after=good.not_after + 1),
        dataclasses.replace(good, certificates=(root.certificate.public_bytes(Encoding.DER),)),
    ):
        assert changed.encode() != good.encode()
        with pytest.raises(errors.CredentialRefused):
            verifier.verify(changed, STATIC, role=Role.INITIATOR, now=SECONDS)
    assert len(verifier) == 1
