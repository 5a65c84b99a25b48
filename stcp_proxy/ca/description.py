"""A certificate, a revocation list or an authority as text for a person."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from stcp_proxy.ca.folder import AuthorityFolder, read_public
from stcp_proxy.ca.profile import PURPOSES
from stcp_proxy.credentials.certificate import names_of
from stcp_proxy.errors import ConfigError, CredentialRefused
from stcp_proxy.keys import PublicKey
from stcp_proxy.redact import printable

_PURPOSE_NAMES: Final = {oid: name for name, oid in PURPOSES.items()}
_LAST_PART: Final = 3
"""A certificate is due for renewal in the last third of its lifetime."""
_WIDTH: Final = 12


def describe(path: str | Path, now: datetime.datetime) -> str:
    """The text for a file with certificates or with a revocation list, or for the folder of an authority.

    Args:
        path: the file or folder.
        now: the time.

    Raises:
        ConfigError: there is nothing of this kind.
    """
    path = Path(path)
    if path.is_dir():
        return _authority(AuthorityFolder(path), now)
    content = read_public(path)
    if b"PRIVATE KEY-----" in content:
        raise ConfigError(f"{path} contains a private key, which is not shown", remedy="name the certificate beside it")
    try:
        if b"-----BEGIN X509 CRL-----" in content:
            return _revocation_list(x509.load_pem_x509_crl(content), now)
        found = x509.load_pem_x509_certificates(content)
        return "\n\n".join(_certificate(each, now) for each in found)
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as exc:
        what = f"{path} contains neither a certificate nor a revocation list in PEM form ({printable(str(exc))[:80]})"
        raise ConfigError(what, remedy="name a file such as tls.crt, ca.crt or ca.crl") from None


def text_of(certificate: x509.Certificate, now: datetime.datetime) -> str:
    """The text for one certificate."""
    return _certificate(certificate, now)


def _authority(folder: AuthorityFolder, now: datetime.datetime) -> str:
    revoked = {entry.serial_number for entry in folder.revocation_list()}
    lines = [_certificate(folder.certificate, now), "", "issued:"]
    issued = folder.issued()
    for each in issued:
        state = "revoked" if each.serial_number in revoked else _left(each, now)
        lines.append(f"  {each.serial_number:x}  {', '.join(_names(each))}  {state}")
    known = {each.serial_number for each in issued}
    lines += [f"  {serial:x}  (no copy here)  revoked" for serial in sorted(revoked - known)]
    return "\n".join(lines if issued or revoked else [*lines[:-1], "nothing issued yet"])


def _certificate(certificate: x509.Certificate, now: datetime.datetime) -> str:
    authority = _is_authority(certificate)
    rows: list[tuple[str, str]] = []
    if authority:
        rows.append(("subject", printable(certificate.subject.rfc4514_string())))
    else:
        rows += [("name", name) for name in _names(certificate)]
        rows.append(("for", _purposes(certificate)))
    issuer = certificate.issuer.rfc4514_string()
    rows += [
        ("serial", f"{certificate.serial_number:x}"),
        ("issued by", "itself" if certificate.issuer == certificate.subject else printable(issuer)),
        ("valid", f"from {_time(certificate.not_valid_before_utc)} to {_time(certificate.not_valid_after_utc)}"),
        ("", _left(certificate, now)),
        ("key", _key(certificate)),
    ]
    return "\n".join(["authority" if authority else "certificate", *_rows(rows)])


def _revocation_list(found: x509.CertificateRevocationList, now: datetime.datetime) -> str:
    end = found.next_update_utc
    rows = [("issued by", printable(found.issuer.rfc4514_string())), ("made", _time(found.last_update_utc))]
    if end is not None:
        rows.append(("next", _time(end) + (", which is over" if end < now else "")))
    rows += [("revoked", f"{entry.serial_number:x} at {_time(entry.revocation_date_utc)}") for entry in found]
    return "\n".join(["revocation list", *_rows(rows if len(found) else [*rows, ("revoked", "nothing")])])


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<{_WIDTH}}{value}" for name, value in rows]


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        return names_of(certificate)
    except CredentialRefused as exc:
        return (f"none that counts: {exc.what}",)


def _purposes(certificate: x509.Certificate) -> str:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ", ".join(PURPOSES)
    return ", ".join(name for oid, name in _PURPOSE_NAMES.items() if oid in usage) or "neither connect nor listen"


def _left(certificate: x509.Certificate, now: datetime.datetime) -> str:
    """How long a certificate is valid from `now` on, in words."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        return f"expired at {_time(end)}"
    if now < start:
        return f"not valid before {_time(start)}"
    left = end - now
    hours = left.total_seconds() / 3600
    words = f"{hours / 24:.0f} days left" if left.days > 1 else f"{hours:.0f} hours left"
    return f"{words}: renew it" if left * _LAST_PART < end - start else words


def _key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, X25519PublicKey):
        return str(PublicKey(key.public_bytes_raw()))
    if isinstance(key, Ed25519PublicKey):
        return "Ed25519"
    if isinstance(key, EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    return f"RSA {key.key_size}" if isinstance(key, RSAPublicKey) else "of another kind"


def _time(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
