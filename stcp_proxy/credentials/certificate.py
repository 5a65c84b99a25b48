"""Rules for one certificate: its names, its kind, its purpose, its constraints. `path` applies them to a whole chain.

An issuer has to be marked as one, and a critical extension that this module does not know is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID

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
_SERIALS_END: Final = 1 << 159
"""The first number with more than 20 bytes in DER, whose numbers have a sign."""
_CURVES: Final = {"secp256r1", "secp384r1", "secp521r1"}
_HASHES: Final = {"sha256", "sha384", "sha512"}

UNREADABLE: Final = (
    ValueError, TypeError, LookupError, OverflowError, UnsupportedAlgorithm,
    x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What `cryptography` raises for a field that it cannot read."""

_E = TypeVar("_E", bound=x509.ExtensionType)


def read_certificate(der: bytes) -> x509.Certificate:
    """Read a certificate that a peer presents, or that this side would present.

    Args:
        der: the certificate.

    Raises:
        CertificateChainRefused: its serial number is not above 0, or has more than 20 bytes (RFC 5280, section 4.1.2.2). Or the
            bits of its signature are no whole bytes. A certificate ends with its signature, a BIT STRING whose first byte counts
            the unused bits at its end (X.690, section 8.6.2). The signature does not cover that count, and the library takes
            another one where those bits are zero. ECDSA has a second form (r, n-s) of each signature, which is accepted: nothing
            names a certificate by its encoding.
        One of UNREADABLE: `der` is no certificate.
    """
    certificate = x509.load_der_x509_certificate(der)
    if not der.endswith(b"\x00" + certificate.signature):
        raise CertificateChainRefused("the signature of a certificate of the peer ends within a byte")
    if not 0 < certificate.serial_number < _SERIALS_END:
        raise CertificateChainRefused("the serial number of a certificate of the peer is not above 0, or has more than 20 bytes")
    return certificate


class Extensions:
    """The extensions of one certificate, read once.

    A peer's certificate is new to this side, so each look at it runs code and data that no cache has: five walks through its
    extensions took a quarter of the time beside its signatures.

    Args:
        certificate: the certificate.
        known: extensions that may be critical.

    Raises:
        CertificateChainRefused: another extension is critical.
    """

    __slots__ = ("_found",)

    def __init__(self, certificate: x509.Certificate, known: frozenset[type[x509.ExtensionType]] | None = None) -> None:
        self._found: dict[type[x509.ExtensionType], x509.ExtensionType] = {}
        for each in certificate.extensions:
            kind = type(each.value)
            if known is not None and each.critical and kind not in known:
                raise CertificateChainRefused(
                    f"a certificate of the peer has an unknown critical extension {each.oid.dotted_string}"
                )
            self._found[kind] = each.value

    def get(self, kind: type[_E]) -> _E | None:
        """An extension by its type, or None."""
        return cast("_E | None", self._found.get(kind))


def names_of(certificate: x509.Certificate, extensions: Extensions | None = None) -> tuple[str, ...]:
    """The names of a certificate: its DNS names and URIs, in order. Names with a wildcard or in another form are left out.

    Args:
        certificate: the certificate.
        extensions: its extensions, where they have been read.

    Raises:
        CertificateChainRefused: the certificate has no such name, or its names are too long.
    """
    alternative = (extensions or Extensions(certificate)).get(x509.SubjectAlternativeName) or ()
    dns, uris = [], []
    for each in alternative:
        if type(each) is x509.DNSName and DNS_NAME.fullmatch(name := lower(each.value)):
            dns.append(DNS + name)
        elif type(each) is x509.UniformResourceIdentifier and URI_NAME.fullmatch(uri := lower_host(each.value)):
            uris.append(uri)
    names = tuple(dict.fromkeys((*dns, *uris)))
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


def check_leaf(leaf: x509.Certificate, role: Role) -> Extensions:
    """Check the rules for a peer's own certificate. Returns its extensions.

    Raises:
        CertificateChainRefused, CertificateRoleRefused: `leaf` may not stand for a peer in `role`.
    """
    extensions = Extensions(leaf, _KNOWN)
    constraints, usage = extensions.get(x509.BasicConstraints), extensions.get(x509.KeyUsage)
    if constraints is not None and constraints.ca:
        raise CertificateChainRefused("the peer presents a certificate of an authority as its own")
    signs = leaf.public_key_algorithm_oid != PublicKeyAlgorithmOID.X25519
    if usage is not None and not (usage.digital_signature if signs else usage.key_agreement):
        raise CertificateRoleRefused("the key usage of the peer's certificate does not allow it to authenticate")
    check_purpose(extensions, role)
    return extensions


def check_purpose(extensions: Extensions, role: Role) -> None:
    """Raises CertificateRoleRefused when a certificate has an extended key usage that does not fit `role`."""
    purposes = extensions.get(x509.ExtendedKeyUsage)
    wanted, words = _PURPOSE[role]
    if purposes is not None and wanted not in purposes:
        raise CertificateRoleRefused(f"the peer's certificate may not be used {words}")


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate is marked as one of an authority."""
    constraints = Extensions(certificate).get(x509.BasicConstraints)
    return constraints is not None and constraints.ca


def check_issuer(issuer: x509.Certificate, below: int) -> None:
    """Raises CertificateChainRefused unless `issuer` may issue the certificate below it.

    Args:
        issuer: certificate of an authority.
        below: number of intermediate certificates between it and the leaf.
    """
    extensions = Extensions(issuer, _KNOWN_OF_ISSUERS)
    constraints, usage = extensions.get(x509.BasicConstraints), extensions.get(x509.KeyUsage)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise CertificateChainRefused("a certificate in the peer's chain may not issue others")
    if constraints.path_length is not None and below > constraints.path_length:
        raise CertificateChainRefused("the peer's chain is longer than one of its authorities allows")


def is_strong(key: object) -> bool:
    """Whether a key may sign certificates."""
    return (
        isinstance(key, Ed25519PublicKey)
        or (isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES)
        or (isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS)
    )


def has_strong_hash(certificate: x509.Certificate) -> bool:
    """Whether the signature of a certificate has a strong hash. That of Ed25519 is a part of it, and has no name."""
    used = certificate.signature_hash_algorithm
    return used is None or used.name in _HASHES


def check_constraints(constraints: x509.NameConstraints | None, names: Sequence[str]) -> None:
    """Raises CertificateChainRefused when the name constraints of an issuer exclude one of `names`.

    Constraints for DNS names and URIs are applied. A constraint of another form is refused, because nothing here could apply it.
    """
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
