"""What serves several verifications changes none of them: the library's verifier of a minute, and the bytes of a credential."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from stcp_proxy import errors
from stcp_proxy.credentials import verifier as verifier_module
from stcp_proxy.credentials.verifier import Verifier
from stcp_proxy.protocol.wire import Role

from .issue import CLIENT, NOW, SECONDS, STATIC, credential, make, trusted, verify

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


def searches(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The searches for a chain from now on."""
    found: list[float] = []
    find = verifier_module.find_chain

    def find_chain(*args: Any, **kwargs: Any) -> Any:
        found.append(kwargs["now"])
        return find(*args, **kwargs)

    monkeypatch.setattr(verifier_module, "find_chain", find_chain)
    return found


@BOTH_VERIFIERS
def test_certificate_with_another_key_of_the_handshake(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that starts again: its chain is known, and the new key has to be bound to its certificate all the same."""
    root = make(kind)
    leaf, other = root.issue(kind), root.issue(kind)
    verifier, found = Verifier([trusted(root)]), searches(monkeypatch)
    static = bytes(range(32, 64))
    first = verifier.verify(credential(leaf), STATIC, role=Role.INITIATOR, now=SECONDS)
    end = int(SECONDS) + 60
    again = verifier.verify(credential(leaf, static=static, not_after=end), static, role=Role.INITIATOR, now=SECONDS)
    assert len(found) == 1
    assert again == dataclasses.replace(first, not_after=end)
    stolen = dataclasses.replace(credential(other, static=static), certificates=credential(leaf).certificates)
    for wrong, key in (
        (credential(leaf), static),
        (stolen, static),
        (dataclasses.replace(credential(leaf), signature=b""), STATIC),
    ):
        with pytest.raises(errors.BindingRefused):
            verifier.verify(wrong, key, role=Role.INITIATOR, now=SECONDS)
    with pytest.raises(errors.CertificateExpired):
        verifier.verify(credential(leaf, static=static, not_after=int(SECONDS) - 100), static, role=Role.INITIATOR, now=SECONDS)
    assert len(found) == 1


def test_certificates_are_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another role, with other intermediates, after their end, and once others have taken the place."""
    root = make("ed25519")
    middle = root.authority("ed25519", name="middle")
    leaf = middle.issue("ed25519", eku=(CLIENT,))
    verifier, found = Verifier([trusted(root)], remember=1), searches(monkeypatch)
    statics = iter(bytes([number]) * 32 for number in range(32))

    def meet(seconds: float = SECONDS, role: Role = Role.INITIATOR, **kwargs: Any) -> int:
        static = next(statics)
        verifier.verify(credential(leaf, static=static, role=role, **kwargs), static, role=role, now=seconds)
        return len(found)

    assert [meet(), meet()] == [1, 1]
    with pytest.raises(errors.CertificateRoleRefused):
        meet(role=Role.RESPONDER)
    with pytest.raises(errors.UnknownAuthority):
        meet(intermediates=())
    count = meet()
    late = leaf.certificate.not_valid_after_utc.timestamp()
    assert meet(late + 30, not_after=int(late) + 100) == count + 1
    with pytest.raises(errors.CertificateExpired):
        meet(late + 61, not_after=int(late) + 100)
    verify(verifier, root.issue("ed25519"))
    assert meet() == count + 4


def test_certificate_that_was_never_bound_is_not_remembered() -> None:
    """Certificates are public: a stranger who shows one of somebody else takes no place."""
    root = make("ed25519")
    verifier = Verifier([trusted(root)])
    with pytest.raises(errors.BindingRefused):
        verifier.verify(credential(root.issue("ed25519")), bytes(32), role=Role.INITIATOR, now=SECONDS)
    assert (len(verifier), len(verifier._chains)) == (0, 0)
