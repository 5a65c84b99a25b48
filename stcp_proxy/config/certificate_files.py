"""Files with certificates, authorities, revocation lists and revoked keys.

Only the process that reads a configuration imports this module. The files are PEM, as cert-manager, SPIFFE helpers, Vault and
step-ca write them.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from stcp_proxy.config.certificate_plan import CertificateKey, Encoded, Facts, OwnCertificate, Revoked, time_text
from stcp_proxy.credentials.authority import key_bytes, key_id
from stcp_proxy.credentials.binding import MIN_RSA_BITS
from stcp_proxy.credentials.certificate import UNREADABLE, check_leaf, is_authority, names_of, read_certificate
from stcp_proxy.credentials.path import LEEWAY, MAX_CERTIFICATES
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.errors import ConfigError, CredentialRefused
from stcp_proxy.keys import PRIVATE_PREFIX, PUBLIC_PREFIX, PublicKey, check_file_name, load_private_key, read_secret_file
from stcp_proxy.protocol.credential import Credential
from stcp_proxy.protocol.wire import Role
from stcp_proxy.redact import shown

SigningKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey | X25519PrivateKey

# Largest sizes in bytes: a certificate with its intermediates, a bundle of authorities, a file with revocation lists.
_MAX_CHAIN: Final = 256 * 1024
_MAX_BUNDLE: Final = 2 * 1024 * 1024
_MAX_LIST: Final = 32 * 1024 * 1024
_MAX_SIGNATURE: Final = 1024
"""Bytes of the largest signature that a credential may have here: RSA with 8192 bits."""
_DER: Final = b"\x30"
"""First byte of every certificate, key and list in DER."""
_BEGINS: Final = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN X509 CERTIFICATE-----")
_LIST_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_WRITE_WHOLE: Final = "write the whole file under another name, then rename it"
_LIST_BLOCK: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_SERIAL: Final = re.compile(r"serial:([A-Za-z0-9][A-Za-z0-9._-]*)/([0-9A-Fa-f]+|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})+)")
_RIGHT_KEYS: Final = f"Ed25519, ECDSA P-256 or P-384, RSA of {MIN_RSA_BITS} bits or more, or X25519"


def read_public_file(path: Path, *, most: int) -> bytes:
    """Read a file without secrets.

    Args:
        path: the file. Symbolic links are followed: Kubernetes mounts files through two of them.
        most: largest size in bytes.

    Raises:
        ConfigError: the file is missing, too large, or cannot be read.
    """
    check_file_name(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path} is not a regular file", remedy="name the file itself")
            content = file.read(most + 1)
    except FileNotFoundError:
        raise ConfigError(f"the file {path} does not exist", remedy="name an existing file") from None
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise ConfigError(f"cannot read {path}: {why}", remedy="name a file that the user of stcp-proxy can read") from None
    if len(content) > most:
        raise ConfigError(f"{path} is larger than {most} bytes", remedy="name the right file")
    return content


def load_own(chain: Path, key: Path, *, now: float) -> OwnCertificate:
    """Read the certificate of this side and its private key.

    Args:
        chain: PEM file with the certificate and its intermediates, the certificate first.
        key: PEM file with the private key; only its owner may read it.
        now: the time, in unix seconds.

    Raises:
        ConfigError: one of the files cannot be used, or the key does not fit the certificate.
    """
    found = _certificates(chain, read_public_file(chain, most=_MAX_CHAIN))
    private = _private_key(key)
    try:
        encoded = tuple(certificate.public_bytes(Encoding.DER) for certificate in found)
        for certificate in encoded:
            read_certificate(certificate)  # a peer would refuse what this refuses
        leaf = _leaf(chain, found, private, key)
        names = names_of(leaf)
        facts = facts_of(leaf)
    except CredentialRefused as exc:
        raise ConfigError(f"{chain}: {exc.what.replace('the peer', 'this side')}", remedy=exc.remedy) from None
    except UNREADABLE:
        raise ConfigError(f"{chain} holds a certificate that cannot be read", remedy="issue it anew") from None
    if now > facts.not_after:
        what = f"{chain}: the certificate expired at {time_text(facts.not_after)}, and the time here is {time_text(now)}"
        raise ConfigError(what, remedy="renew it, or correct the clock")
    if now < facts.not_before - LEEWAY:
        what = f"{chain}: the certificate is valid from {time_text(facts.not_before)}, and the time here is {time_text(now)}"
        raise ConfigError(what, remedy="correct the clock, or wait")
    try:
        Credential(encoded, 0, bytes(_MAX_SIGNATURE)).encode()
    except ValueError as exc:
        raise ConfigError(
            f"{chain} is too large for a handshake: {exc}", remedy="remove certificates that are no intermediates"
        ) from None
    secret = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return OwnCertificate(encoded, CertificateKey(secret), names, facts)


def role_problem(own: OwnCertificate, role: Role) -> str | None:
    """Why the certificate of this side does not fit a role; None where it fits."""
    try:
        check_leaf(x509.load_der_x509_certificate(own.chain[0]), role)
    except CredentialRefused as exc:
        return exc.what.replace("the peer's", "this side's").replace("the peer", "this side")
    except UNREADABLE:
        return "this side's certificate cannot be read"
    return None


def load_roots(path: Path, *, now: float) -> tuple[Encoded, ...]:
    """Read the certificates of an authority.

    Args:
        path: PEM file with one or several certificates.
        now: the time, in unix seconds.

    Raises:
        ConfigError: the file cannot be used, a certificate may not issue others, or all of them have expired.
    """
    found = []
    for certificate in _certificates(path, read_public_file(path, most=_MAX_BUNDLE)):
        try:
            facts, may_issue = facts_of(certificate), is_authority(certificate)
            key_bytes(certificate)  # a serving process has to read its key
        except UNREADABLE:
            raise ConfigError(f"{path} holds a certificate that cannot be read", remedy="remove it from the file") from None
        if not may_issue:
            what = f"{path}: {facts.subject} is not a certificate of an authority"
            raise ConfigError(what, remedy="name the file of the authority that issues certificates, often ca.crt")
        found.append(Encoded(certificate.public_bytes(Encoding.DER), facts))
    if all(now > root.facts.not_after for root in found):
        last = max(root.facts.not_after for root in found)
        what = f"{path}: the authority expired at {time_text(last)}, and the time here is {time_text(now)}"
        raise ConfigError(what, remedy="add its new certificate, or correct the clock")
    return tuple(dict.fromkeys(found))


def load_lists(path: Path, roots: tuple[Encoded, ...], *, signed: bool = False) -> tuple[Encoded, ...]:
    """Read the revocation lists of an authority.

    Args:
        path: PEM file with one or several lists.
        roots: the certificates of the authority.
        signed: whether one of them has to have signed each list. Otherwise a list in another name, as of an intermediate, counts
            for the certificates of the issuer that signed it, and nobody has checked its times.

    Raises:
        ConfigError: the file cannot be used, or a list is not signed by the authority that it names.
    """
    content = read_public_file(path, most=_MAX_LIST)
    if content[:1] == _DER:
        raise ConfigError(f"{path} is in DER form", remedy=f"'openssl crl -inform der -in {path} -out FILE' makes PEM of it")
    blocks = _LIST_BLOCK.findall(content)
    if not blocks:
        raise ConfigError(f"{path} holds no revocation list", remedy="name the CRL of the authority, in PEM")
    if len(blocks) != content.count(_LIST_BEGIN):
        raise ConfigError(f"{path} holds a revocation list without an end", remedy=_WRITE_WHOLE)
    return tuple(_revocation_list(path, block, roots, signed) for block in blocks)


def _revocation_list(path: Path, block: bytes, roots: tuple[Encoded, ...], must_be_signed: bool) -> Encoded:
    try:
        found = x509.load_pem_x509_crl(block)
        Revocations(lists=[found])
        _ = found.signature_hash_algorithm  # raises for an algorithm that no key here can verify
        named = [root for root in map(_loaded, roots) if root.subject == found.issuer]
        signed = (not named and not must_be_signed) or any(_is_signed(found, root) for root in named)
        end = found.next_update_utc
        extensions = [each.value for each in found.extensions]
        serial = next((str(each.crl_number) for each in extensions if isinstance(each, x509.CRLNumber)), "")
        keys = [each.key_identifier for each in extensions if isinstance(each, x509.AuthorityKeyIdentifier)]
        begin = found.last_update_utc.timestamp()
        issuer = found.issuer.rfc4514_string()
        key_id = "".join((each or b"").hex() for each in keys)
        facts = Facts(issuer, serial, begin, float("inf") if end is None else end.timestamp(), issuer, key_id)
    except UNREADABLE as exc:
        raise ConfigError(f"{path} holds a revocation list that cannot be read: {exc}", remedy="fetch it anew") from None
    if not signed and not named:
        what = f"{path}: no certificate of the bundle signed the revocation list of {facts.subject}, so its times prove nothing"
        raise ConfigError(what, remedy="add its issuer's certificate to the bundle, or remove 'crl_overdue: refuse'")
    if not signed:
        what = f"{path}: the revocation list names {facts.subject} as its issuer, whose key did not sign it"
        raise ConfigError(what, remedy="fetch it anew from the authority")
    return Encoded(found.public_bytes(Encoding.DER), facts)


def load_revoked(path: Path, authorities: frozenset[str]) -> tuple[Revoked, frozenset[PublicKey]]:
    """Read the file of revoked keys and certificates.

    Each line is one of these; text after `#` is a comment:

        stcp-pub:…                     an X25519 public key, of `peers` or of a certificate
        spki:BASE64                    any public key, of `peers` or of a certificate (SubjectPublicKeyInfo, DER)
        serial:AUTHORITY/HEXADECIMAL   a certificate by its serial number, and the name of its authority in this file

    Args:
        path: the file.
        authorities: names of the authorities.

    Returns:
        What concerns certificates, and the public keys of peers.

    Raises:
        ConfigError: the file cannot be read, or has a line of another form.
    """
    keys: list[bytes] = []
    serials: list[tuple[str, int]] = []
    peers: list[PublicKey] = []
    for number, line in _lines(read_public_file(path, most=_MAX_BUNDLE)):
        where = f"{path}:{number}"
        if line.startswith(PUBLIC_PREFIX):
            peers.append(key := _peer_key(where, line))
            point = X25519PublicKey.from_public_bytes(key.raw)
            keys.append(point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        elif line.startswith("spki:"):
            revoked = _public_key(where, line.removeprefix("spki:"))
            keys.append(revoked.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
            if isinstance(revoked, X25519PublicKey):
                peers.append(_peer_key(where, str(PublicKey(revoked.public_bytes_raw()))))
        elif (match := _SERIAL.fullmatch(line)) is not None:
            if match[1] not in authorities:
                remedy = f"write a name from 'authorities': {', '.join(sorted(authorities)) or 'there is none'}"
                raise ConfigError(f"{where}: {shown(match[1])} is no authority of this side", remedy=remedy)
            serials.append((match[1], int(match[2].replace(":", ""), 16)))
        else:
            remedy = "write stcp-pub:KEY, spki:BASE64 or serial:AUTHORITY/HEXADECIMAL"
            raise ConfigError(f"{where}: this is no revoked key or certificate", remedy=remedy)
    return Revoked(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(serials))), frozenset(peers)


def facts_of(certificate: x509.Certificate) -> Facts:
    """The facts by which a person recognizes a certificate."""
    try:
        subject = ", ".join(names_of(certificate))
    except CredentialRefused:
        subject = certificate.subject.rfc4514_string() or "a certificate without a name"
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    issuer, key = certificate.issuer.rfc4514_string(), key_id(key_bytes(certificate)).hex()
    return Facts(subject, f"{certificate.serial_number:x}", start, end, issuer, key)


# -- parts of files --------------------------------------------------------------------------------------------------------


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    if content[:1] == _DER:
        raise ConfigError(f"{path} is in DER form", remedy=f"'openssl x509 -inform der -in {path} -out FILE' makes PEM of it")
    if b"PRIVATE KEY-----" in content:
        what = f"{path} holds a private key where certificates belong"
        raise ConfigError(what, remedy="put the key into a file of its own, which only its owner can read")
    try:
        found = x509.load_pem_x509_certificates(content)
    except UNREADABLE:
        what = f"{path} holds no certificate" if b"CERTIFICATE-----" not in content else f"{path} cannot be read as certificates"
        raise ConfigError(what, remedy="name a PEM file, which begins with '-----BEGIN CERTIFICATE-----'") from None
    if len(found) != sum(map(content.count, _BEGINS)):  # the library ignores an incomplete certificate at the end
        raise ConfigError(f"{path} holds a certificate without an end", remedy=_WRITE_WHOLE)
    return found


def _private_key(path: Path) -> SigningKey:
    content = read_secret_file(path, kind="certificate key")
    if PRIVATE_PREFIX.encode() in content:
        return X25519PrivateKey.from_private_bytes(load_private_key(path).secret.reveal())
    make = "name a PEM file, which begins with '-----BEGIN PRIVATE KEY-----'"
    if content[:1] == _DER:
        raise ConfigError(f"{path} is in DER form", remedy=f"'openssl pkey -inform der -in {path} -out FILE' makes PEM of it")
    if b"PRIVATE KEY-----" not in content:
        found = "a certificate" if b"CERTIFICATE-----" in content else "no private key of a certificate"
        raise ConfigError(f"{path} holds {found}", remedy=make)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        what = f"{path} holds a key that is encrypted with a passphrase"
        raise ConfigError(what, remedy=f"'openssl pkey -in {path} -out FILE' decrypts it; keep FILE private") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} holds a private key that cannot be read", remedy=make) from None
    if isinstance(key, Ed25519PrivateKey | X25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in ("secp256r1", "secp384r1"):
        return key
    if isinstance(key, RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    raise ConfigError(f"{path} holds a key of the wrong type", remedy=f"use {_RIGHT_KEYS}")


def _leaf(path: Path, found: list[x509.Certificate], private: SigningKey, key: Path) -> x509.Certificate:
    """The certificate of the private key: the first of the chain."""
    if len(found) > MAX_CERTIFICATES:
        what = f"{path} holds {len(found)} certificates, and a peer accepts {MAX_CERTIFICATES}"
        raise ConfigError(what, remedy="keep the certificate and its intermediates alone")
    fitting = [certificate for certificate in found if certificate.public_key() == private.public_key()]
    if not fitting:
        raise ConfigError(f"the key in {key} does not fit the certificate in {path}", remedy="name the files of one pair")
    if fitting[0] is not found[0]:
        raise ConfigError(f"the certificate of {key} is not the first in {path}", remedy="put it before its intermediates")
    return found[0]


def _peer_key(where: str, text: str) -> PublicKey:
    """The X25519 public key of a line."""
    try:
        return PublicKey.parse(text)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc.what}", remedy=exc.remedy) from None


def _public_key(where: str, text: str) -> Ed25519PublicKey | X25519PublicKey | EllipticCurvePublicKey | RSAPublicKey:
    """The public key of an `spki:` line."""
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey | X25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
        remedy = "write what 'openssl x509 -in CERT -noout -pubkey' prints between its marks, in one line"
        raise ConfigError(f"{where}: this is no public key of a certificate", remedy=remedy)
    return key


def _lines(content: bytes) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, without comments and blank lines."""
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text:
            yield number, text


def _loaded(encoded: Encoded) -> x509.Certificate:
    return x509.load_der_x509_certificate(encoded.der)


def _is_signed(found: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    key = root.public_key()
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey):
        return False
    return found.is_signature_valid(key)
