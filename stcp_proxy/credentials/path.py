"""The chain of certificates from a leaf to an authority.

`cryptography.x509.verification` builds and verifies the chain. It refuses issuers with Ed25519 keys: such chains are built here.
The rules of `certificate` apply to both kinds of chain, and a test gives both kinds the same faults.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509 import verification

from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.certificate import (
    Extensions,
    check_constraints,
    check_issuer,
    check_leaf,
    check_purpose,
    has_strong_hash,
    is_authority,
    names_of,
)
from stcp_proxy.credentials.issuer import Issuer, issuer_of
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
_BUCKET: Final = 60
"""Seconds for which a verifier of the library is used again."""

_ISSUERS: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)
_LEAVES: Final = verification.ExtensionPolicy.permit_all().require_present(
    x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
)
"""`certificate` has the rules for extensions: names, purposes and critical ones."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A verified chain of certificates.

    Attributes:
        authority: the authority that vouches for it.
        leaf: the peer's own certificate.
        issuers: the certificates above it; the last one is a root of the authority.
        names: the names of the leaf.
        not_after: the first end of a validity in it, in unix seconds.
    """

    authority: Authority
    leaf: x509.Certificate
    issuers: tuple[Issuer, ...]
    names: tuple[str, ...]
    not_after: float


def find_chain(presented: Sequence[x509.Certificate], authorities: Sequence[Authority], *, role: Role, now: float) -> Chain:
    """Verify the certificates that a peer presents.

    Args:
        presented: the leaf, then intermediates in any order.
        authorities: authorities that may vouch for the leaf.
        role: the peer's role.
        now: the time, in unix seconds.

    Raises:
        CredentialRefused: no authority vouches for the leaf.
    """
    if len(presented) > MAX_CERTIFICATES:
        raise CertificateChainRefused(f"the peer presents {len(presented)} certificates, {MAX_CERTIFICATES} are allowed")
    leaf, *intermediates = presented
    extensions = check_leaf(leaf, role)
    end = check_time(leaf, now)
    for certificate in intermediates:
        check_time(certificate, now)
    refusal: CredentialRefused | None = None
    for authority in authorities:
        for issuers in _chains_to(authority, leaf, extensions, intermediates, now):
            try:
                names = _check_chain(leaf, extensions, issuers, role)
            except CredentialRefused as exc:
                refusal = refusal or exc
            else:
                return Chain(authority, leaf, issuers, names, min(end, *(issuer.end for issuer in issuers)))
    issuer = shown(leaf.issuer.rfc4514_string())
    raise refusal or UnknownAuthority(f"no authority of this side issued the peer's certificate (issuer: {issuer})")


def check_time(certificate: x509.Certificate, now: float) -> float:
    """Check that a certificate is valid at `now`. Returns the end of its validity, in unix seconds.

    Raises:
        CertificateExpired, CertificateNotYetValid: it is not, with both times.
    """
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if now > end + LEEWAY:
        what = f"a certificate of the peer was valid until {time_text(end)}, and the time here is {time_text(now)}"
        raise CertificateExpired(what)
    if now < start - LEEWAY:
        what = f"a certificate of the peer is valid from {time_text(start)}, and the time here is {time_text(now)}"
        raise CertificateNotYetValid(what)
    return end


def _chains_to(
    authority: Authority, leaf: x509.Certificate, extensions: Extensions, intermediates: list[x509.Certificate], now: float
) -> Iterator[tuple[Issuer, ...]]:
    """The issuers of each chain from a leaf to a root of an authority, with every signature verified.

    Raises:
        CertificateChainRefused: the leaf has no names.
    """
    roots = [root for root in map(issuer_of, authority.roots) if root.start - LEEWAY <= now <= root.end + LEEWAY]
    vouched = _vouched(roots, intermediates) if intermediates else []
    issuers = [*roots, *vouched]
    if any(issuer.is_ed25519 for issuer in issuers):
        yield from _chains(leaf, (), roots, vouched)
        return
    if leaf.issuer not in [issuer.subject for issuer in issuers]:
        return
    if extensions.get(x509.SubjectAlternativeName) is None:
        names_of(leaf, extensions)  # raises: the library refuses such a leaf too, but does not say why
    below = [issuer.certificate for issuer in vouched]
    verifier = _verifier(tuple(root.certificate for root in roots), _moment(roots, [leaf, *below], now))
    with contextlib.suppress(verification.VerificationError):
        yield tuple(map(issuer_of, verifier.verify(leaf, below).chain[1:]))


def _vouched(roots: list[Issuer], intermediates: list[x509.Certificate]) -> list[Issuer]:
    """The intermediates that a root has issued, directly or through others of them.

    The search begins at the roots, so only keys that a root vouches for verify signatures. From the leaf upwards, a stranger's
    own certificates of one name would all issue each other, and each order of them would be tried: 60 ms for one handshake.
    """
    found: list[x509.Certificate] = []
    unknown = list(intermediates)
    issuers = [root.certificate for root in roots]
    while issuers and unknown:
        issuer = issuers.pop()
        issued = [certificate for certificate in unknown if _issued(certificate, issuer)]
        unknown = [certificate for certificate in unknown if certificate not in issued]
        found += issued
        issuers += filter(is_authority, issued)
    return [issuer_of(certificate) for certificate in found]


def _chains(
    lowest: x509.Certificate, chain: tuple[Issuer, ...], roots: list[Issuer], intermediates: list[Issuer]
) -> Iterator[tuple[Issuer, ...]]:
    """All continuations of `chain`, issuers of a leaf, to a root. The number of certificates bounds their length.

    Args:
        lowest: the last certificate of the chain: a leaf, where `chain` is empty.
        chain: its issuers so far.
        roots: certificates of an authority.
        intermediates: certificates that they vouch for.
    """
    for root in roots:
        if _issued(lowest, root.certificate, is_leaf=not chain):
            yield (*chain, root)
    for candidate in intermediates:
        is_new = candidate not in chain and candidate.certificate != lowest
        if is_new and _issued(lowest, candidate.certificate, is_leaf=not chain):
            yield from _chains(candidate.certificate, (*chain, candidate), roots, intermediates)


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


def _check_chain(leaf: x509.Certificate, extensions: Extensions, issuers: tuple[Issuer, ...], role: Role) -> tuple[str, ...]:
    """Apply the rules for issuers to a chain whose signatures are verified. Returns the names of the leaf."""
    names = names_of(leaf, extensions)
    below = leaf
    for depth, issuer in enumerate(issuers):
        # The key of an issuer has verified the signature. With Ed25519 there is one algorithm, and no hash to choose.
        if not issuer.is_strong or not (issuer.is_ed25519 or has_strong_hash(below)):
            raise CertificateChainRefused("a certificate in the peer's chain is signed with a weak or unknown algorithm")
        _check_issuer(issuer.certificate, depth)
        check_constraints(issuer.constraints, names)
        if depth + 1 < len(issuers):
            check_purpose(issuer.extensions, role)
        below = issuer.certificate
    return names


@functools.lru_cache(maxsize=16)
def _verifier(roots: tuple[x509.Certificate, ...], moment: datetime.datetime) -> verification.ClientVerifier:
    """The library's verifier for some roots at one time. It is made once for all peers of a minute."""
    builder = verification.PolicyBuilder().store(verification.Store(list(roots))).time(moment).max_chain_depth(MAX_CERTIFICATES)
    return builder.extension_policies(ca_policy=_ISSUERS, ee_policy=_LEAVES).build_client_verifier()


def _moment(roots: list[Issuer], presented: list[x509.Certificate], now: float) -> datetime.datetime:
    """The time at which the library verifies a chain. This module has checked the true times of what a peer presents.

    Returns:
        The beginning of this minute, where everything is valid then, so that a verifier serves many peers. Otherwise the time
        nearest to `now` at which all that the peer presents is valid: this is the leeway.
    """
    start = max(certificate.not_valid_before_utc for certificate in presented)
    end = min(certificate.not_valid_after_utc for certificate in presented)
    minute = now - now % _BUCKET
    moment = datetime.datetime.fromtimestamp(minute, datetime.UTC)
    if start <= moment <= end and all(root.start <= minute and now <= root.end for root in roots):
        return moment
    return max(start, min(end, datetime.datetime.fromtimestamp(now, datetime.UTC)))


def time_text(seconds: float) -> str:
    """A time in unix seconds, for a person."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
