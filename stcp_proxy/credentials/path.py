"""The chain of certificates from a leaf to an authority.

`cryptography.x509.verification` builds and verifies the chain. It refuses issuers with Ed25519 keys: such chains are built here.
The rules of `certificate` apply to both kinds of chain, and a test gives both kinds the same faults.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import Iterator, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import verification

from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.certificate import (
    check_algorithm,
    check_constraints,
    check_issuer,
    check_leaf,
    check_purpose,
    is_authority,
    names_of,
)
from stcp_proxy.errors import (
    CertificateChainRefused,
    CertificateExpired,
    CertificateNotYetValid,
    CredentialRefused,
    UnknownAuthority,
)
from stcp_proxy.protocol.wire import Role
from stcp_proxy.redact import shown

MAX_CERTIFICATES: Final = 5
"""Most certificates that a peer presents: a leaf and its intermediates."""
LEEWAY: Final = 60
"""Seconds by which the clocks of two hosts may differ."""

_ISSUERS: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)
_LEAVES: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)
"""`certificate` has the rules for extensions: names, purposes and critical ones."""


def find_chain(
    presented: Sequence[x509.Certificate], authorities: Sequence[Authority], *, role: Role, now: float
) -> tuple[Authority, list[x509.Certificate], tuple[str, ...]]:
    """Verify the certificates that a peer presents.

    Args:
        presented: the leaf, then intermediates in any order.
        authorities: authorities that may vouch for the leaf.
        role: the peer's role.
        now: the time, in unix seconds.

    Returns:
        The authority, the chain from the leaf to one of the authority's roots, and the names of the leaf.

    Raises:
        CredentialRefused: no authority vouches for the leaf.
    """
    if len(presented) > MAX_CERTIFICATES:
        raise CertificateChainRefused(f"the peer presents {len(presented)} certificates, {MAX_CERTIFICATES} are allowed")
    leaf, *intermediates = presented
    check_leaf(leaf, role)
    for certificate in presented:
        check_time(certificate, now)
    refusal: CredentialRefused | None = None
    for authority in authorities:
        for chain in _chains_to(authority, leaf, intermediates, now):
            try:
                return authority, chain, _check_chain(chain, role)
            except CredentialRefused as exc:
                refusal = refusal or exc
    issuer = shown(leaf.issuer.rfc4514_string())
    raise refusal or UnknownAuthority(f"no authority of this side issued the peer's certificate (issuer: {issuer})")


def check_time(certificate: x509.Certificate, now: float) -> None:
    """Raises CertificateExpired or CertificateNotYetValid, with both times, unless the certificate is valid at `now`."""
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if now > end + LEEWAY:
        raise CertificateExpired(f"a certificate of the peer was valid until {_text(end)}, and the time here is {_text(now)}")
    if now < start - LEEWAY:
        raise CertificateNotYetValid(f"a certificate of the peer is valid from {_text(start)}, and the time here is {_text(now)}")


def _chains_to(
    authority: Authority, leaf: x509.Certificate, intermediates: list[x509.Certificate], now: float
) -> Iterator[list[x509.Certificate]]:
    """The chains from a leaf to the roots of an authority, with every signature verified."""
    roots = [root for root in authority.roots if _in_time(root, now)]
    vouched = _vouched(roots, intermediates) if intermediates else []
    if any(isinstance(issuer.public_key(), Ed25519PublicKey) for issuer in (*roots, *vouched)):
        yield from _chains([leaf], roots, vouched)
        return
    if all(leaf.issuer != issuer.subject for issuer in (*roots, *vouched)):
        return
    moment = _within_all([leaf, *vouched], now)
    builder = verification.PolicyBuilder().store(verification.Store(roots)).time(moment).max_chain_depth(MAX_CERTIFICATES)
    verifier = builder.extension_policies(ca_policy=_ISSUERS, ee_policy=_LEAVES).build_client_verifier()
    with contextlib.suppress(verification.VerificationError):
        yield verifier.verify(leaf, vouched).chain


def _vouched(roots: list[x509.Certificate], intermediates: list[x509.Certificate]) -> list[x509.Certificate]:
    """The intermediates that a root has issued, directly or through others of them.

    The search begins at the roots, so only keys that a root vouches for verify signatures. From the leaf upwards, a stranger's
    own certificates of one name would all issue each other, and each order of them would be tried: 60 ms for one handshake.
    """
    found: list[x509.Certificate] = []
    unknown = list(intermediates)
    issuers = list(roots)
    while issuers and unknown:
        issuer = issuers.pop()
        issued = [certificate for certificate in unknown if _issued(certificate, issuer)]
        unknown = [certificate for certificate in unknown if certificate not in issued]
        found += issued
        issuers += filter(is_authority, issued)
    return found


def _chains(
    chain: list[x509.Certificate], roots: list[x509.Certificate], intermediates: list[x509.Certificate]
) -> Iterator[list[x509.Certificate]]:
    """All chains that continue `chain` to a root. The number of certificates bounds their length."""
    is_leaf = len(chain) == 1
    for root in roots:
        if _issued(chain[-1], root, is_leaf=is_leaf):
            yield [*chain, root]
    for candidate in intermediates:
        if candidate not in chain and _issued(chain[-1], candidate, is_leaf=is_leaf):
            yield from _chains([*chain, candidate], roots, intermediates)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate, *, is_leaf: bool = False) -> bool:
    """Whether an issuer signed a certificate. The library compares the names first, without making objects of them."""
    try:
        if is_leaf:
            certificate.verify_directly_issued_by(issuer)
        else:
            _verify_intermediate(certificate, issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


@functools.lru_cache(maxsize=64)
def _verify_intermediate(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Verify the signature of an intermediate certificate. Peers of one authority present the same ones.

    A failure is not remembered, so a stranger takes no place.
    """
    certificate.verify_directly_issued_by(issuer)


_check_issuer: Final = functools.lru_cache(maxsize=64)(check_issuer)
"""Remembers which issuers have passed: an issuer has many peers below it, and its certificate never changes."""


def _check_chain(chain: list[x509.Certificate], role: Role) -> tuple[str, ...]:
    """Apply the rules for issuers to a chain whose signatures are verified. Returns the names of the leaf."""
    names = names_of(chain[0])
    for below, issuer in enumerate(chain[1:]):
        check_algorithm(chain[below], issuer)
        _check_issuer(issuer, below)
        check_constraints(issuer, names)
        if below + 2 < len(chain):
            check_purpose(issuer, role)
    return names


def _in_time(certificate: x509.Certificate, now: float) -> bool:
    try:
        check_time(certificate, now)
    except (CertificateExpired, CertificateNotYetValid):
        return False
    return True


def _within_all(certificates: list[x509.Certificate], now: float) -> datetime.datetime:
    """The time nearest to `now` at which all certificates are valid: this is the leeway."""
    start = max(certificate.not_valid_before_utc for certificate in certificates)
    end = min(certificate.not_valid_after_utc for certificate in certificates)
    return max(start, min(end, datetime.datetime.fromtimestamp(now, datetime.UTC)))


def _text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
