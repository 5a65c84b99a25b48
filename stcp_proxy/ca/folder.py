"""The files of an authority.

    ca.crt    its certificate: every host trusts it
    ca.key    its private key: it never leaves this folder
    ca.crl    its revocation list: every host reads it
    issued/   a copy of each certificate that it issued, by serial number

Invariants:
- A certificate is issued only with its copy in `issued/`.
- One command at a time changes the folder: it locks the folder.
- The revocation list is replaced whole, and only by a list that contains all entries of the old one.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from stcp_proxy.ca import encrypted_key, profile
from stcp_proxy.errors import ConfigError, KeyFileError
from stcp_proxy.keys import PublicKey, read_secret_file, replace_file, write_folder
from stcp_proxy.keys.new_file import PUBLIC, SECRET
from stcp_proxy.redact import shown

CERTIFICATE: Final = "ca.crt"
KEY: Final = "ca.key"
REVOKED: Final = "ca.crl"
ISSUED: Final = "issued"
LEAF: Final = "tls.crt"
LEAF_KEY: Final = "tls.key"
_MAX_FILE: Final = 16 * 1024 * 1024
"""Bytes of a file. A revocation list has about 40 bytes for each entry."""

Ask = Callable[[], bytes]
"""Returns the passphrase. It is called only for an encrypted key."""


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate to issue.

    Attributes:
        names: names as `stcp_proxy.credentials.names` writes them, at least one.
        purposes: keys of `profile.PURPOSES`, at least one.
        validity: how long it is valid.
        public: the peer's public key; None makes a new key.
    """

    names: tuple[str, ...]
    purposes: tuple[str, ...]
    validity: datetime.timedelta
    public: PublicKey | None = None


def create(
    path: str | Path, name: str, *, passphrase: bytes | None, now: datetime.datetime, validity: datetime.timedelta
) -> x509.Certificate:
    """Make a new authority in a new folder.

    Args:
        path: name of the folder.
        name: name of the authority, for people.
        passphrase: encrypts its key; None leaves the key as it is.
        now: the time.
        validity: how long the authority is valid.

    Raises:
        KeyFileError: the folder exists and is not empty, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    certificate = profile.make_authority(key, name, now=now, validity=validity)
    revoked = profile.make_revocation_list(key, certificate, before=None, serials=(), now=now)
    files = {
        CERTIFICATE: (_pem(certificate), PUBLIC),
        KEY: (encrypted_key.encode_key(key, passphrase), SECRET),
        REVOKED: (_pem(revoked), PUBLIC),
    }
    write_folder(path, files)
    return certificate


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, at least one.

    Raises:
        ConfigError: the file cannot be read, or contains none.
    """
    try:
        return x509.load_pem_x509_certificates(read_public(path))
    except ValueError:
        raise ConfigError(f"{path} contains no certificate in PEM form", remedy="name a file such as tls.crt or ca.crt") from None


def read_public(path: Path) -> bytes:
    """The content of a file that is no secret.

    Raises:
        ConfigError: the file cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}", remedy="name a file that can be read") from None
    if len(content) > _MAX_FILE:
        raise ConfigError(f"{path} is larger than {_MAX_FILE >> 20} MiB", remedy="name a certificate or a revocation list")
    return content


class AuthorityFolder:
    """An authority with its files.

    Args:
        path: the folder.

    Raises:
        ConfigError: the folder is not one that `create` made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        if not (self.path / CERTIFICATE).exists():
            remedy = "name the folder that 'stcp-proxy ca init --out FOLDER' made"
            raise ConfigError(f"{self.path} is not the folder of an authority: it has no {CERTIFICATE}", remedy=remedy)
        self.certificate: Final = read_certificates(self.path / CERTIFICATE)[0]
        if not isinstance(self.certificate.public_key(), Ed25519PublicKey):
            remedy = "let that program issue certificates, or make an authority with 'stcp-proxy ca init'"
            raise ConfigError(f"{self.path} belongs to an authority of another program", remedy=remedy)

    # -- what it has issued ----------------------------------------------------------------------------------------------------

    def issued(self) -> list[x509.Certificate]:
        """Every certificate that this authority issued, oldest first."""
        copies = (self.path / ISSUED).glob("*.crt")
        return sorted((read_certificates(copy)[0] for copy in copies), key=lambda each: each.not_valid_before_utc)

    def revocation_list(self) -> x509.CertificateRevocationList:
        """The revocation list now.

        Raises:
            ConfigError: the file is missing or damaged: a new one would forget what was revoked.
        """
        path = self.path / REVOKED
        try:
            found = x509.load_pem_x509_crl(read_public(path))
            valid = found.is_signature_valid(self._public)
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError(f"{path} is not the revocation list of this authority", remedy="restore it from a copy on a host")
        return found

    # -- changes ---------------------------------------------------------------------------------------------------------------

    def issue(self, order: Order, out: str | Path, *, ask: Ask, now: datetime.datetime) -> x509.Certificate:
        """Issue a certificate, and write a folder for the host: the certificate, its key if it is new, ca.crt and ca.crl.

        Args:
            order: the certificate.
            out: name of the folder; it is new or empty.
            ask: returns the passphrase.
            now: the time.

        Raises:
            ConfigError: the authority ends before the certificate would.
            KeyFileError: the key cannot be read, or the folder exists or cannot be written. Nothing was issued.
        """
        end = now + order.validity
        last = self.certificate.not_valid_after_utc
        if end > last:
            days = max(0, (last - now).days)
            what = f"the authority ends at {last:%Y-%m-%d %H:%M UTC}, before the certificate would"
            raise ConfigError(what, remedy=f"give --valid {days}d or less, or make a new authority with 'stcp-proxy ca init'")
        leaf_key = Ed25519PrivateKey.generate() if order.public is None else None
        public = leaf_key.public_key() if leaf_key else X25519PublicKey.from_public_bytes(order.public.raw)  # type: ignore[union-attr]
        with self._locked():
            key = self._key(ask)
            certificate = profile.make_certificate(
                key, self.certificate, public, names=order.names, purposes=order.purposes, now=now, end=end
            )
            files = {
                LEAF: (_pem(certificate), PUBLIC),
                CERTIFICATE: (_pem(self.certificate), PUBLIC),
                REVOKED: (_pem(self.revocation_list()), PUBLIC),
            }
            if leaf_key is not None:
                files[LEAF_KEY] = encrypted_key.encode_key(leaf_key, None), SECRET
            copy = self.path / ISSUED / f"{certificate.serial_number:x}.crt"
            _make_folder(copy.parent)
            replace_file(copy, _pem(certificate))
            try:
                write_folder(out, files)
            except KeyFileError:
                copy.unlink(missing_ok=True)
                raise
        return certificate

    def revoke(self, wanted: Sequence[str], *, ask: Ask, now: datetime.datetime, force: bool = False) -> list[int]:
        """Add certificates to the revocation list.

        Args:
            wanted: serial numbers in hexadecimal digits, or names of certificate files.
            ask: returns the passphrase.
            now: the time.
            force: whether a serial number may be revoked of which this folder has no certificate.

        Returns:
            The serial numbers that are new in the list.

        Raises:
            ConfigError: one of `wanted` is no certificate of this authority; nothing was revoked.
            KeyFileError: the key cannot be read, or the list cannot be written; nothing was revoked.
        """
        serials = [self._serial(each, force=force) for each in wanted]
        with self._locked():
            before = self.revocation_list()
            new = [serial for serial in dict.fromkeys(serials) if before.get_revoked_certificate_by_serial_number(serial) is None]
            if new:
                made = profile.make_revocation_list(self._key(ask), self.certificate, before=before, serials=new, now=now)
                replace_file(self.path / REVOKED, _pem(made))
        return new

    # -- inside ----------------------------------------------------------------------------------------------------------------

    @property
    def _public(self) -> Ed25519PublicKey:
        public = self.certificate.public_key()
        assert isinstance(public, Ed25519PublicKey)  # noqa: S101
        return public

    def _key(self, ask: Ask) -> Ed25519PrivateKey:
        path = self.path / KEY
        pem = read_secret_file(path, kind="authority's key")
        passphrase = ask() if encrypted_key.is_encrypted(pem) else None
        try:
            key = encrypted_key.decode_key(pem, passphrase)
        except ValueError:
            what = f"the passphrase does not open {path}" if passphrase is not None else f"{path} is damaged"
            remedy = "try again" if passphrase is not None else "restore it from a copy"
            raise KeyFileError(what, remedy=remedy) from None
        if key.public_key() != self._public:
            what = f"{path} is not the key of {self.path / CERTIFICATE}"
            raise KeyFileError(what, remedy="restore both files from the same copy")
        return key

    def _serial(self, text: str, *, force: bool) -> int:
        """The serial number that an argument of `revoke` means."""
        if os.path.exists(text):
            certificate = read_certificates(Path(text))[0]
            try:
                certificate.verify_directly_issued_by(self.certificate)
            except (ValueError, TypeError, InvalidSignature):
                what = f"{text} was not issued by this authority"
                raise ConfigError(what, remedy="revoke it with the authority that 'stcp-proxy ca show' names") from None
            return certificate.serial_number
        serial = _hexadecimal(text)
        if serial is None:
            remedy = "give a serial number as 'stcp-proxy ca show' prints it, or a certificate file"
            raise ConfigError(f"{shown(text)} is neither a serial number nor a file", remedy=remedy)
        if not force and not (self.path / ISSUED / f"{serial:x}.crt").exists():
            what = f"{self.path / ISSUED} has no certificate with the serial number {serial:x}"
            raise ConfigError(
                what, remedy=f"compare it with 'stcp-proxy ca show {self.path}', or give --force to revoke it anyway"
            )
        return serial

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock, which a second command waits for."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise ConfigError(f"cannot lock {self.path}: {exc.strerror}", remedy="run this as the owner of the folder") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _make_folder(path: Path) -> None:
    """Make a folder that everybody may read; it may exist. Raises KeyFileError."""
    try:
        path.mkdir(mode=0o755, exist_ok=True)
    except OSError as exc:
        raise KeyFileError(f"cannot make {path}: {exc.strerror}", remedy="run this as the owner of the folder") from None


def _hexadecimal(text: str) -> int | None:
    """A serial number from its digits, with or without colons between bytes. RFC 5280 allows 20 bytes."""
    if not re.fullmatch(r"[0-9A-Fa-f]{1,40}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){1,19}", text):
        return None
    return int(text.replace(":", ""), 16) or None


def _pem(found: x509.Certificate | x509.CertificateRevocationList) -> str:
    return found.public_bytes(Encoding.PEM).decode("ascii")
