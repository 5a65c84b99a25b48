"""Rules for one certificate: its names, its kind, its purpose, its constraints. `path` applies them to a whole chain.

An issuer has to be marked as one, and a critical extension that this module does not know is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from stcp_proxy.credentials.binding import MIN_RSA_BITS
from stcp_proxy.credentials.names import DNS, DNS_NAME, MAX_NAMES_LEN, URI_NAME, lower, lower_host
from stcp_proxy.errors import CertificateChainRefused, CertificateRoleRefused
from stcp_proxy.protocol.wire import Role

_KNOWN: Final[frozenset[type[x509.ExtensionType]]] = frozenset(
    (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
)
_KNOWN_OF_ISSUERS: Final = _KNOWN | {x509.NameConstraints}
_PURPOSE: Final = {
    Role.INITIATOR: (ExtendedKeyUsageOID.CLIENT_AUTH, "to connect (client authentication)"),
    Role.RESPONDER: (ExtendedKeyUsageOID.SERVER_AUTH, "to listen (server authentication)"),
}
_CURVES: Final = {"secp256r1", "secp384r1", "secp521r1"}
_HASHES: Final = {"sha256", "sha384", "sha512"}

UNREADABLE: Final = (
    ValueError, TypeError, LookupError, OverflowError, UnsupportedAlgorithm,
    x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What `cryptography` raises for a field that it cannot read."""

_E = TypeVar("_E", bound=x509.ExtensionType)


def extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    """An extension of a certificate, or None.

    `get_extension_for_class` asks an abstract base class about each extension: 3 us, where this takes 0.3 us.
    """
    for found in certificate.extensions:
        if type(found.value) is kind:
            return found.value
    return None


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names of a certificate: its DNS names and URIs, in order. Names with a wildcard or in another form are left out.

    Raises:
        CertificateChainRefused: the certificate has no such name, or its names are too long.
    """
    alternative = extension(certificate, x509.SubjectAlternativeName) or x509.SubjectAlternativeName([])
    dns = [DNS + name for name in map(lower, alternative.get_values_for_type(x509.DNSName)) if DNS_NAME.fullmatch(name)]
    uris = [lower_host(uri) for uri in alternative.get_values_for_type(x509.UniformResourceIdentifier)]
    names = tuple(dict.fromkeys([*dns, *(uri for uri in uris if URI_NAME.fullmatch(uri))]))
    if not names:
        raise CertificateChainRefused(
            "the peer's certificate has no DNS name and no URI", remedy="issue it with a subject alternative name"
        )
    if sum(map(len, names)) > MAX_NAMES_LEN:
        raise CertificateChainRefused(
            f"the names of the peer's certificate have more than {MAX_NAMES_LEN} characters",
            remedy="issue it with fewer names",
        )
    return names


def check_leaf(leaf: x509.Certificate, role: Role) -> None:
    """Raises CertificateChainRefused or CertificateRoleRefused unless `leaf` may stand for a peer in `role`."""
    _check_critical(leaf, _KNOWN)
    if is_authority(leaf):
        raise CertificateChainRefused("the peer presents a certificate of an authority as its own")
    usage = extension(leaf, x509.KeyUsage)
    signs = usage is not None and not isinstance(leaf.public_key(), X25519PublicKey)
    if usage is not None and not (usage.digital_signature if signs else usage.key_agreement):
        raise CertificateRoleRefused("the key usage of the peer's certificate does not allow it to authenticate")
    check_purpose(leaf, role)


def check_purpose(certificate: x509.Certificate, role: Role) -> None:
    """Raises CertificateRoleRefused when the certificate has an extended key usage that does not fit `role`."""
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    wanted, words = _PURPOSE[role]
    if purposes is not None and wanted not in purposes:
        raise CertificateRoleRefused(f"the peer's certificate may not be used {words}")


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate is marked as one of an authority."""
    constraints = extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def check_issuer(issuer: x509.Certificate, below: int) -> None:
    """Raises CertificateChainRefused unless `issuer` may issue the certificate below it.

    Args:
        issuer: certificate of an authority.
        below: number of intermediate certificates between it and the leaf.
    """
    _check_critical(issuer, _KNOWN_OF_ISSUERS)
    constraints, usage = extension(issuer, x509.BasicConstraints), extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise CertificateChainRefused("a certificate in the peer's chain may not issue others")
    if constraints.path_length is not None and below > constraints.path_length:
        raise CertificateChainRefused("the peer's chain is longer than one of its authorities allows")


def check_algorithm(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    """Raises CertificateChainRefused unless the key that signed `certificate` and its hash are strong enough."""
    key = issuer.public_key()
    strong = (
        isinstance(key, Ed25519PublicKey)
        or (isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES)
        or (isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS)
    )
    used = certificate.signature_hash_algorithm
    if not strong or (used is not None and used.name not in _HASHES):
        raise CertificateChainRefused("a certificate in the peer's chain is signed with a weak or unknown algorithm")


def check_constraints(issuer: x509.Certificate, names: Sequence[str]) -> None:
    """Raises CertificateChainRefused when the issuer's name constraints exclude one of `names`.

    Constraints for DNS names and URIs are applied. A constraint of another form is refused, because nothing here could apply it.
    """
    constraints = extension(issuer, x509.NameConstraints)
    if constraints is None:
        return
    permitted, excluded = constraints.permitted_subtrees or (), constraints.excluded_subtrees or ()
    if not all(map(_is_known_form, (*permitted, *excluded))):
        raise CertificateChainRefused("an authority of the peer's chain has name constraints of an unknown form")
    for name in names:
        same = [tree for tree in permitted if isinstance(tree, x509.DNSName) == name.startswith(DNS)]
        inside = [tree for tree in excluded if _within(name, tree, itself=True)]
        if inside or (same and not any(_within(name, tree, itself=False) for tree in same)):
            raise CertificateChainRefused(f"the name constraints of an authority exclude {name}")


def _is_known_form(tree: x509.GeneralName) -> bool:
    """Whether a subtree is a domain, with or without a dot before it; for DNS names, the empty one contains all names.

    Other texts, such as `*.prod`, `prod.` or a whole URI, would match no name, and so exclude nothing.
    """
    if not isinstance(tree, x509.DNSName | x509.UniformResourceIdentifier):
        return False
    domain = lower(tree.value)
    return DNS_NAME.fullmatch(domain.removeprefix(".")) is not None or (domain == "" and isinstance(tree, x509.DNSName))


def _within(name: str, tree: x509.GeneralName, *, itself: bool) -> bool:
    """Whether a name lies in a subtree of RFC 5280, section 4.2.1.10.

    Args:
        name: the name, as `names_of` has it.
        tree: the subtree, of a known form.
        itself: whether a domain with a dot before it contains itself, where the RFC does not say.
    """
    value = lower(str(tree.value))
    if isinstance(tree, x509.DNSName):
        host, base = name.removeprefix(DNS), value.removeprefix(".")
        equal = host == base and (itself or host == value)
        return name.startswith(DNS) and (not base or equal or host.endswith("." + base))
    if name.startswith(DNS):
        return False
    host = name.split("://")[1].split("/")[0]
    return host.endswith(value) if value.startswith(".") else host == value


def _check_critical(certificate: x509.Certificate, known: frozenset[type[x509.ExtensionType]]) -> None:
    for found in certificate.extensions:
        if found.critical and type(found.value) not in known:
            raise CertificateChainRefused(
                f"a certificate of the peer has an unknown critical extension {found.oid.dotted_string}"
            )
