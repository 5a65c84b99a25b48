"""A key file as systemd hands out a credential: root's, and readable by a list of one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stcp_proxy import acl, keys
from stcp_proxy.errors import KeyFileError

NOBODY = 0xFFFFFFFF
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
US, THEM = 4321, 4322
Entry = tuple[int, int, int]

CREDENTIAL: list[Entry] = [(OWNER, 4, NOBODY), (USER, 4, US), (GROUP, 0, NOBODY), (MASK, 4, NOBODY), (OTHER, 0, NOBODY)]


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[list[Entry]], Path]:
    """A key file of root's with an access list."""
    if os.geteuid() != 0:
        pytest.skip("only root can give root's file an access list")

    def make(entries: list[Entry]) -> Path:
        path = tmp_path / "host.key"
        keys.write_secret_file(path, keys.format_private_key(keys.PrivateKey.generate()))
        path.chmod(0o400)
        raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        try:
            os.setxattr(path, "system.posix_acl_access", raw)
        except OSError as exc:
            pytest.skip(f"this file system has no access lists: {exc.strerror}")
        return path

    return make


def test_a_credential_is_ours_to_read(key_file: Callable[[list[Entry]], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(CREDENTIAL)
    assert path.stat().st_mode & 0o777 == 0o440  # what a look at the mode alone would refuse
    monkeypatch.setattr(os, "geteuid", lambda: US)
    keys.load_private_key(path)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([*CREDENTIAL[:2], (USER, 4, THEM), *CREDENTIAL[2:]], id="somebody else too"),
        pytest.param([CREDENTIAL[0], (USER, 4, THEM), *CREDENTIAL[2:]], id="somebody else only"),
        pytest.param([*CREDENTIAL[:2], (GROUP, 4, NOBODY), *CREDENTIAL[3:]], id="its group"),
        pytest.param([*CREDENTIAL[:3], (NAMED_GROUP, 4, 50), *CREDENTIAL[3:]], id="a group"),
        pytest.param([CREDENTIAL[0], (USER, 6, US), CREDENTIAL[2], (MASK, 6, NOBODY), CREDENTIAL[4]], id="writing"),
    ],
)
def test_any_other_list_is_refused(
    key_file: Callable[[list[Entry]], Path], monkeypatch: pytest.MonkeyPatch, entries: list[Entry]
) -> None:
    path = key_file(entries)
    monkeypatch.setattr(os, "geteuid", lambda: US)
    with pytest.raises(KeyFileError, match=r"0460|access list that lets others in"):
        keys.load_private_key(path)


def test_without_a_list(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open() as file:
        assert acl.admits_only(file.fileno(), os.geteuid()) is None


@pytest.mark.parametrize("raw", [b"", b"\x02", struct.pack("<I", 1), struct.pack("<I", 2), struct.pack("<I", 2) + b"x"])
def test_a_list_that_is_none(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(os, "getxattr", lambda *_: raw)
    assert acl.admits_only(0, US) is False
