"""The chain of certificates from a leaf to an authority.

`cryptography.x509.verification` builds and verifies the chain. It refuses issuers with Ed25519 keys: such chains are built here.
The rules of `certificate` apply to both kinds of chain, and a test gives both kinds the same faults.
"""

from __future__ import annotations

import contextlib
import datetime
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
) -> tuple[Authority, list[x509.Certificate]]:
    """Verify the certificates that a peer presents.

    Args:
        presented: the leaf, then intermediates in any order.
        authorities: authorities that may vouch for the leaf.
        role: the peer's role.
        now: the time, in unix seconds.

    Returns:
        The authority, and the chain from the leaf to one of the authority's roots.

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
                _check_chain(chain, role)
            except CredentialRefused as exc:
                refusal = refusal or exc
            else:
                return authority, chain
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
    vouched = _vouched(roots, intermediates)
    if not any(_issued(leaf, issuer) for issuer in (*roots, *vouched)):
        return
    if any(isinstance(issuer.public_key(), Ed25519PublicKey) for issuer in (*roots, *vouched)):
        yield from _chains([leaf], roots, vouched)
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
    for root in roots:
        if _issued(chain[-1], root):
            yield [*chain, root]
    for candidate in intermediates:
        if candidate not in chain and _issued(chain[-1], candidate):
            yield from _chains([*chain, candidate], roots, intermediates)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_chain(chain: list[x509.Certificate], role: Role) -> None:
    """Apply the rules for issuers to a chain whose signatures are verified."""
    names = names_of(chain[0])
    for below, issuer in enumerate(chain[1:]):
        check_algorithm(chain[below], issuer)
        check_issuer(issuer, below)
        check_constraints(issuer, names)
        if below + 2 < len(chain):
            check_purpose(issuer, role)


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
