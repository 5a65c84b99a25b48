"""An authority from its files: what it issues, our own verifier accepts; what it revokes, it refuses."""

from __future__ import annotations

import datetime
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from stcp_proxy.ca import encrypted_key, folder
from stcp_proxy.ca.folder import AuthorityFolder, Order
from stcp_proxy.credentials.authority import Authority
from stcp_proxy.credentials.binding import make_credential
from stcp_proxy.credentials.names import NamePattern
from stcp_proxy.credentials.revocation import Revocations
from stcp_proxy.credentials.verifier import Verified, Verifier
from stcp_proxy.errors import CertificateExpired, CertificateRevoked, CertificateRoleRefused, ConfigError, KeyFileError
from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.credential import decode_credential
from stcp_proxy.protocol.wire import Role

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
STATIC = bytes(range(32))
NAMES = ("dns:app-7.prod.internal", "spiffe://prod/app-7")
BOTH = ("connect", "listen")


def never() -> bytes:
    raise AssertionError("no passphrase is needed")


@pytest.fixture
def ca(tmp_path: Path) -> AuthorityFolder:
    folder.create(tmp_path / "ca", "prod", passphrase=None, now=NOW, validity=3650 * DAY)
    return AuthorityFolder(tmp_path / "ca")


def issue(ca: AuthorityFolder, name: str = "app-7", *, purposes: tuple[str, ...] = BOTH, **more: object) -> Path:
    out = ca.path.parent / name
    ca.issue(Order(NAMES, purposes, 30 * DAY, **more), out, ask=never, now=NOW)  # type: ignore[arg-type]
    return out


def verify(host: Path, role: Role = Role.INITIATOR, *, key: bool = True, static: bytes = STATIC, at: float = 0) -> Verified:
    """What a peer says of a host by the files that it was given."""
    leaf = x509.load_pem_x509_certificate((host / "tls.crt").read_bytes())
    signs = load_pem_private_key((host / "tls.key").read_bytes(), None) if key else None
    end = int(NOW.timestamp()) + 365 * 86400
    made = make_credential((leaf.public_bytes(Encoding.DER),), signs, role=role, static=static, not_after=end)  # type: ignore[arg-type]
    root = x509.load_pem_x509_certificate((host / "ca.crt").read_bytes())
    lists = [x509.load_pem_x509_crl((host / "ca.crl").read_bytes())]
    verifier = Verifier([Authority("prod", (root,), (NamePattern("dns:*.prod.internal"),))], Revocations(lists=lists))
    return verifier.verify(decode_credential(made), static, role=role, now=NOW.timestamp() + at)


@pytest.mark.parametrize("role", [Role.INITIATOR, Role.RESPONDER])
def test_what_it_issues_is_verified(ca: AuthorityFolder, role: Role) -> None:
    verified = verify(issue(ca), role)
    assert verified.names == ("dns:app-7.prod.internal",)
    assert verified.serial == ca.issued()[0].serial_number


@pytest.mark.parametrize(("purpose", "role"), [("connect", Role.RESPONDER), ("listen", Role.INITIATOR)])
def test_a_purpose_that_was_not_given_is_refused(ca: AuthorityFolder, purpose: str, role: Role) -> None:
    host = issue(ca, purposes=(purpose,))
    with pytest.raises(CertificateRoleRefused):
        verify(host, role)
    verify(host, Role.RESPONDER if role is Role.INITIATOR else Role.INITIATOR)


def test_a_hosts_own_key_is_certified_without_leaving_the_host(ca: AuthorityFolder) -> None:
    public = PrivateKey.generate().public
    host = issue(ca, public=public)
    assert sorted(path.name for path in host.iterdir()) == ["ca.crl", "ca.crt", "tls.crt"]
    assert verify(host, key=False, static=public.raw).names == ("dns:app-7.prod.internal",)


def test_validity(ca: AuthorityFolder) -> None:
    host = issue(ca)
    verify(host, at=30 * 86400)
    with pytest.raises(CertificateExpired):
        verify(host, at=30 * 86400 + 61)
    with pytest.raises(ConfigError, match=r"the authority ends at 2036-11-25 12:00 UTC, .* give --valid 3650d or less"):
        ca.issue(Order(NAMES, BOTH, 3651 * DAY), ca.path.parent / "late", ask=never, now=NOW)
    assert len(ca.issued()) == 1


def test_revocation(ca: AuthorityFolder) -> None:
    first, second, third = issue(ca, "one"), issue(ca, "two"), issue(ca, "three")
    serial = x509.load_pem_x509_certificate((first / "tls.crt").read_bytes()).serial_number
    assert ca.revoke([str(first / "tls.crt")], ask=never, now=NOW) == [serial]
    assert ca.revoke([f"{serial:x}", str(first / "tls.crt")], ask=never, now=NOW) == []
    assert len(ca.revoke([str(second / "tls.crt")], ask=never, now=NOW)) == 1
    for host in (first, second, third):
        (host / "ca.crl").write_bytes((ca.path / "ca.crl").read_bytes())
    for host in (first, second):
        with pytest.raises(CertificateRevoked):
            verify(host)
    verify(third)
    number = ca.revocation_list().extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert (number, len(ca.revocation_list())) == (3, 2)


def test_a_later_certificate_brings_the_revocation_list_of_its_time(ca: AuthorityFolder) -> None:
    first = issue(ca, "one")
    ca.revoke([str(first / "tls.crt")], ask=never, now=NOW)
    assert (issue(ca, "two") / "ca.crl").read_bytes() == (ca.path / "ca.crl").read_bytes()


MISPLACED_COLONS = ("1:2", "12:3", "1:23", "123:45", "12:345", "12::34", ":12", "12:", ":", ":".join(["7f"] * 21))


def test_what_cannot_be_revoked(ca: AuthorityFolder, tmp_path: Path) -> None:
    issue(ca)
    folder.create(tmp_path / "other", "prod", passphrase=None, now=NOW, validity=DAY)
    before = (ca.path / "ca.crl").read_bytes()
    for wanted, says in [
        ("abc", r"issued has no certificate with the serial number abc; .* give --force"),
        ("0", "'0' is neither a serial number nor a file"),
        ("xyz", "'xyz' is neither"),
        ("-1", "'-1' is neither"),
        ("f" * 41, "is neither a serial number"),
        *((text, f"'{text}' is neither a serial number") for text in MISPLACED_COLONS),
        (str(tmp_path / "other" / "ca.crt"), "was not issued by this authority"),
        (str(ca.path / "ca.key"), "contains no certificate"),
    ]:
        with pytest.raises(ConfigError, match=says):
            ca.revoke([wanted], ask=never, now=NOW)
    assert (ca.path / "ca.crl").read_bytes() == before
    assert ca.revoke(["0A:bc"], ask=never, now=NOW, force=True) == [0xABC]
    longest = (1 << 159) - 1
    assert ca.revoke([":".join(["7f", *["ff"] * 19])], ask=never, now=NOW, force=True) == [longest]


@pytest.mark.parametrize("content", ["", "missing", "another"])
def test_a_lost_revocation_list_is_not_replaced_by_an_empty_one(ca: AuthorityFolder, tmp_path: Path, content: str) -> None:
    host = issue(ca)
    folder.create(tmp_path / "other", "prod", passphrase=None, now=NOW, validity=DAY)
    (ca.path / "ca.crl").unlink()
    if content != "missing":
        (ca.path / "ca.crl").write_bytes((tmp_path / "other" / "ca.crl").read_bytes() if content else b"")
    with pytest.raises(ConfigError, match=r"ca\.crl"):
        ca.revoke([str(host / "tls.crt")], ask=never, now=NOW)
    with pytest.raises(ConfigError, match=r"ca\.crl"):
        issue(ca, "without-a-list")
    assert len(ca.issued()) == 1  # nothing was issued, so nothing is listed


def test_a_folder_that_cannot_be_used_is_a_sentence(ca: AuthorityFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(KeyFileError, match="issued: Permission denied; run this as the owner"):
        issue(ca)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"cannot lock .*: Permission denied; run this as the owner"):
        ca.revoke(["a"], ask=never, now=NOW, force=True)


# -- files ---------------------------------------------------------------------------------------------------------------------


def test_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder.create(tmp_path / "ca", "prod", passphrase=None, now=NOW, validity=DAY)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ca").iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.crl": 0o644, "ca.key": 0o600}


def test_nothing_is_overwritten(ca: AuthorityFolder, tmp_path: Path) -> None:
    host = issue(ca)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to("elsewhere")
    before = {path: path.read_bytes() for path in (*host.iterdir(), tmp_path / "file")}
    for out in (host, tmp_path / "file", tmp_path / "link", ca.path):
        with pytest.raises(KeyFileError, match="exists, and nothing in it is overwritten; choose another name"):
            ca.issue(Order(NAMES, BOTH, DAY), out, ask=never, now=NOW)
        with pytest.raises(KeyFileError, match="exists, and nothing in it is overwritten"):
            folder.create(out, "prod", passphrase=None, now=NOW, validity=DAY)
    assert {path: path.read_bytes() for path in before} == before
    assert len(ca.issued()) == 1
    (tmp_path / "empty").mkdir()
    issue(ca, "empty")


def test_a_failure_leaves_nothing_behind(ca: AuthorityFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    before = {*tmp_path.rglob("*"), ca.path / "issued"}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for out in ("app", "ca-2"):
            with pytest.raises(KeyFileError, match="No space left on device; make room"):
                issue(ca, out)
            with pytest.raises(KeyFileError, match="No space left"):
                folder.create(tmp_path / out, "prod", passphrase=None, now=NOW, validity=DAY)
    assert {*tmp_path.rglob("*")} == before
    with pytest.raises(KeyFileError, match="No such file or directory; choose a folder that exists"):
        issue(ca, "no/folder")


def test_commands_side_by_side_lose_no_revocation(ca: AuthorityFolder) -> None:
    program = """import sys; from datetime import datetime, UTC, timedelta; from pathlib import Path
from stcp_proxy.ca.folder import AuthorityFolder, Order
ca, out, now = AuthorityFolder(sys.argv[1]), sys.argv[2], datetime(2026, 11, 28, 12, tzinfo=UTC)
ca.issue(Order(("dns:a",), ("connect",), timedelta(days=1)), out, ask=bytes, now=now)
ca.revoke([out + "/tls.crt"], ask=bytes, now=now)"""
    hosts = [ca.path.parent / f"host-{number}" for number in range(4)]
    started = [subprocess.Popen([sys.executable, "-c", program, ca.path, host]) for host in hosts]
    assert [process.wait(60) for process in started] == [0] * 4
    assert {entry.serial_number for entry in ca.revocation_list()} == {each.serial_number for each in ca.issued()}
    assert len(ca.issued()) == 4


def test_what_is_no_authority(ca: AuthorityFolder, tmp_path: Path) -> None:
    host = issue(ca)
    with pytest.raises(ConfigError, match="is not the folder of an authority"):
        AuthorityFolder(tmp_path)
    folder.create(tmp_path / "other", "prod", passphrase=None, now=NOW, validity=DAY)
    (ca.path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(KeyFileError, match=r"ca\.key is not the key of .*ca\.crt"):
        issue(ca, "next")
    (ca.path / "ca.key").write_text("junk")
    with pytest.raises(KeyFileError, match=r"ca\.key is damaged"):
        issue(ca, "next")
    (ca.path / "ca.key").chmod(0o644)
    with pytest.raises(KeyFileError, match="has mode 0644"):
        ca.revoke([str(host / "tls.crt")], ask=never, now=NOW)


# -- the encrypted key -----------------------------------------------------------------------------------------------------------


def test_the_key_is_encrypted(tmp_path: Path) -> None:
    folder.create(tmp_path / "ca", "prod", passphrase=b"correct horse", now=NOW, validity=DAY)
    pem = (tmp_path / "ca" / "ca.key").read_bytes()
    assert encrypted_key.is_encrypted(pem)
    ca = AuthorityFolder(tmp_path / "ca")
    order = Order(NAMES, BOTH, DAY / 2)
    with pytest.raises(KeyFileError, match=r"the passphrase does not open .*ca\.key; try again"):
        ca.issue(order, tmp_path / "app", ask=lambda: b"wrong", now=NOW)
    assert not (tmp_path / "app").exists()
    ca.issue(order, tmp_path / "app", ask=lambda: b"correct horse", now=NOW)
    assert encrypted_key.ROUNDS.to_bytes(3, "big") in _der(pem)


def _der(pem: bytes) -> bytes:
    import base64

    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


@given(st.binary(max_size=200))
def test_a_damaged_key_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (whatever the words)
        encrypted_key.decode_key(content, b"x")
