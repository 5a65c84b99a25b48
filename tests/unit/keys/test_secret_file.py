"""Files that hold a secret: which are read, which are refused, and how they are written."""

from __future__ import annotations

import base64
import contextlib
import grp
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stcp_proxy import keys
from stcp_proxy.errors import KeyFileError
from stcp_proxy.keys import PrivateKey, secret_file

RAW = bytes(range(1, 33))
BODY = base64.b64encode(RAW).decode()
PUB = "stcp-pub:" + BODY
KEY = "stcp-key:" + BODY
PSK = "stcp-psk:" + base64.b64encode(bytes(range(100, 132))).decode()


def refusal(parse: Callable[[str], object], text: str) -> str:
    """The message of a refusal, which holds no part of the key."""
    with pytest.raises(KeyFileError) as caught:
        parse(text)
    message = str(caught.value)
    assert BODY[:12] not in message
    assert BODY[-12:] not in message
    return message


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def make(content: str | bytes) -> Path:
        path = tmp_path / "host.key"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return path

    return make


@pytest.mark.parametrize("content", [KEY, KEY + "\n", f"# ours\n\n  {KEY}  \r\n\n", f"# clé\n{KEY}\n"])
def test_file_with_newline_and_comments(key_file: Callable[[str | bytes], Path], content: str) -> None:
    assert keys.load_private_key(key_file(content)) == PrivateKey.parse(KEY)


def test_psk_file(key_file: Callable[[str | bytes], Path]) -> None:
    assert keys.load_psk(str(key_file(PSK))) == keys.parse_psk(PSK)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no key"),
        ("# only a comment\n", "no key"),
        (f"{KEY}\n{KEY}\n", "2 lines"),
        (PUB, "this is a public key"),
        (b"\xff\xfe" + KEY.encode("utf-16-le"), "not a private key"),
        (KEY + "\n" * 5000, "larger than 4096"),
    ],
)
def test_file_content_refused(key_file: Callable[[str | bytes], Path], content: str | bytes, says: str) -> None:
    path = key_file(content)
    message = refusal(lambda _: keys.load_private_key(path), "")
    assert says in message
    assert str(path) in message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o601, 0o666, 0o644])
def test_file_open_to_others_refused(key_file: Callable[[str | bytes], Path], mode: int) -> None:
    path = key_file(KEY)
    path.chmod(mode)
    message = refusal(lambda _: keys.load_private_key(path), "")
    assert f"{mode:04o}" in message
    assert f"chmod 600 {path}" in message


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_file_of_ours_alone(key_file: Callable[[str | bytes], Path], mode: int) -> None:
    path = key_file(KEY)
    path.chmod(mode)
    assert keys.load_private_key(path).secret.reveal() == RAW


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_file_of_somebody_else_refused(key_file: Callable[[str | bytes], Path]) -> None:
    path = key_file(KEY)
    os.chown(path, 12345, -1)
    assert "belongs to user 12345" in refusal(lambda _: keys.load_private_key(path), "")


# -- a file of root's that a group may read ----------------------------------------------------------------------------------

OUR_UID, OUR_GROUP, FS_GROUP = 54321, 54322, 54323  # nobody's, as far as the user database knows


@contextlib.contextmanager
def acting_as(uid: int, groups: list[int]) -> Iterator[None]:
    """This process as a user that is not root, for a while."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(OUR_GROUP)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


@pytest.fixture
def mounted() -> Iterator[Callable[[int, int], Path]]:
    """A key file of root's in a folder that everybody may enter."""
    if os.geteuid() != 0:
        pytest.skip("files of several users need root")
    with tempfile.TemporaryDirectory(prefix="stcp-keys-") as folder:
        os.chmod(folder, 0o755)

        def make(mode: int, group: int) -> Path:
            path = Path(folder) / "host.key"
            path.write_text(KEY)
            os.chown(path, 0, group)
            path.chmod(mode)
            return path

        yield make


@pytest.mark.parametrize(("mode", "groups"), [(0o440, [FS_GROUP]), (0o640, [7, FS_GROUP])])
def test_a_secret_mounted_for_our_group_alone(mounted: Callable[[int, int], Path], mode: int, groups: list[int]) -> None:
    """As Kubernetes mounts a Secret in a pod with fsGroup."""
    path = mounted(mode, FS_GROUP)
    with acting_as(OUR_UID, groups):
        assert keys.load_private_key(path).secret.reveal() == RAW


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o450, 0o441, 0o660, 0o644])
def test_more_than_reading_by_the_group_is_refused(mounted: Callable[[int, int], Path], mode: int) -> None:
    path = mounted(mode, FS_GROUP)
    with acting_as(OUR_UID, [FS_GROUP]):
        assert f"{mode:04o}" in refusal(lambda _: keys.load_private_key(path), "")


def test_a_group_with_somebody_else_in_it_is_refused(mounted: Callable[[int, int], Path]) -> None:
    other = next(user for user in pwd.getpwall() if user.pw_gid != 0 and user.pw_uid != 0)
    path = mounted(0o440, other.pw_gid)
    with acting_as(OUR_UID, [other.pw_gid]):
        message = refusal(lambda _: keys.load_private_key(path), "")
    assert f"group {other.pw_gid}, and so by user '" in message


def test_a_group_named_for_somebody_else_is_refused(mounted: Callable[[int, int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One who is a member by /etc/group."""
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("team", "x", gid, ["root", "mallory"])))
    path = mounted(0o440, FS_GROUP)
    with acting_as(OUR_UID, [FS_GROUP]):
        assert "by user 'mallory'" in refusal(lambda _: keys.load_private_key(path), "")


def test_a_group_that_is_not_ours_is_refused(mounted: Callable[[int, int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be read all the same where a capability or an access list allows it."""
    path = mounted(0o440, FS_GROUP)
    monkeypatch.setattr(os, "geteuid", lambda: OUR_UID)
    assert f"user {OUR_UID} is not a member" in refusal(lambda _: keys.load_private_key(path), "")


def test_root_of_a_pod_with_a_group_for_its_files(mounted: Callable[[int, int], Path]) -> None:
    path = mounted(0o440, FS_GROUP)
    with acting_as(0, [0, FS_GROUP]):
        assert keys.load_private_key(path).secret.reveal() == RAW
    with acting_as(0, [0]):
        assert "0440" in refusal(lambda _: keys.load_private_key(path), "")


def test_a_read_only_mount_is_not_to_be_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    path.write_text(KEY)
    path.chmod(0o644)
    assert f"'chmod 600 {path}'" in refusal(lambda _: keys.load_private_key(path), "")
    mounted = os.statvfs(tmp_path)
    read_only = os.statvfs_result([*mounted[:8], mounted.f_flag | os.ST_RDONLY, mounted[9]])
    monkeypatch.setattr(os, "fstatvfs", lambda _: read_only)
    message = refusal(lambda _: keys.load_private_key(path), "")
    assert "chmod" not in message
    assert "its mount is read-only: mount it with mode 0400" in message


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    path.write_bytes(b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
    path.chmod(0o600)
    assert keys.load_private_key(path).secret.reveal() == RAW


def test_root_shares_its_keys_with_no_group(mounted: Callable[[int, int], Path]) -> None:
    path = mounted(0o440, 0)
    assert "0440" in refusal(lambda _: keys.load_private_key(path), "")


def test_our_own_file_stays_ours(mounted: Callable[[int, int], Path]) -> None:
    """Only root's files are handed out through groups: an owner can make them private."""
    path = mounted(0o440, FS_GROUP)
    os.chown(path, OUR_UID, FS_GROUP)
    with acting_as(OUR_UID, [FS_GROUP]):
        assert "chmod 600" in refusal(lambda _: keys.load_private_key(path), "")


def test_links_are_followed_and_the_file_behind_them_is_judged(tmp_path: Path, key_file: Callable[[str | bytes], Path]) -> None:
    """As Kubernetes mounts a Secret: key -> ..data/key, ..data -> ..2026_01_01."""
    version = tmp_path / "..2026_01_01"
    version.mkdir()
    real = key_file(KEY).rename(version / "key")
    (tmp_path / "..data").symlink_to(version.name)
    link = tmp_path / "key"
    link.symlink_to("..data/key")
    assert keys.load_private_key(link) == PrivateKey.parse(KEY)
    real.chmod(0o644)
    assert "0644" in refusal(lambda _: keys.load_private_key(link), "")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir(0o700)
    for name, says in [
        ("fifo", "not a regular file"),
        ("folder", "not a regular file"),
        ("loop", "cannot open"),
        ("missing", "does not exist; make one with 'stcp-proxy keygen"),
        ("a\0b", "cannot open"),
    ]:
        assert says in refusal(lambda _, name=name: keys.load_private_key(tmp_path / name), "")  # type: ignore[misc]


def test_written_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    before = os.umask(0o777)
    try:
        keys.write_secret_file(path, KEY + "\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load_private_key(path) == PrivateKey.parse(KEY)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    path.write_text("precious")
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("host.key", "link"):
        assert "never overwritten" in refusal(lambda _, name=name: keys.write_secret_file(tmp_path / name, KEY), "")  # type: ignore[misc]
    assert path.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_write_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot create" in refusal(lambda _: keys.write_secret_file(tmp_path / "no" / "host.key", KEY), "")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refusal(lambda _: keys.write_secret_file(tmp_path / "host.key", KEY), "")
    assert not (tmp_path / "host.key").exists()


def test_a_credential_of_another_unit_is_the_copy_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` outside the unit, as docs/SYSTEMD.md runs it."""
    units, own = tmp_path / "credentials", tmp_path / "credentials" / "run-u1.service"
    own.mkdir(parents=True)
    (own / "host.key").write_bytes(b"mine")
    (own / "host.key").chmod(0o400)
    monkeypatch.setattr(secret_file, "CREDENTIALS", units)
    named = units / "stcp-proxy.service" / "host.key"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(KeyFileError) as caught:
        secret_file.read_secret_file(named)
    assert "-p LoadCredential=host.key:FILE stcp-proxy check CONFIG" in (caught.value.remedy or "")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(own))
    assert secret_file.read_secret_file(named) == b"mine"
    elsewhere = tmp_path / "host.key"
    with pytest.raises(KeyFileError) as caught:
        secret_file.read_secret_file(elsewhere)
    assert "keygen" in (caught.value.remedy or "")


def test_a_unit_reads_its_own_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_file, "CREDENTIALS", tmp_path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "a.service"))
    assert secret_file.credential_file(tmp_path / "a.service" / "host.key") == tmp_path / "a.service" / "host.key"
