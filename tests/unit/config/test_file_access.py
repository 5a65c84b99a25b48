"""Who may change a configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stcp_proxy.config.file_access import check_owner, is_mounted_read_only, open_to_others, warn_if_others_add_files
from stcp_proxy.config.intercept import load_capture
from stcp_proxy.errors import ConfigError

TUNNEL = (
    'tunnels: {out: {mode: connect, bind: "localhost:1", intercept: redirect, peer: x, routes: [{match: ":1", to: "a:1"}]}}\n'
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "c.yaml"
    path.parent.mkdir(mode=0o755)
    path.write_text(TUNNEL)
    path.chmod(0o644)
    return path


@pytest.mark.parametrize(
    ("mode", "folder", "says"),
    [
        (0o600, 0o700, None),
        (0o644, 0o755, None),
        (0o664, 0o755, "its mode is 0664"),
        (0o646, 0o755, "its mode is 0646"),
        (0o644, 0o777, "its folder"),
        (0o644, 0o1777, None),
    ],
)
def test_modes(file: Path, mode: int, folder: int, says: str | None) -> None:
    file.chmod(mode)
    file.parent.chmod(folder)
    found = open_to_others(file)
    assert found is None if says is None else found is not None and says in found


@pytest.mark.parametrize(("mode", "warns"), [(0o755, False), (0o775, True), (0o777, True), (0o1777, True)])
def test_who_can_add_a_peer(file: Path, capsys: pytest.CaptureFixture[str], mode: int, warns: bool) -> None:
    file.parent.chmod(mode)
    assert warn_if_others_add_files(file.parent) is warns
    assert (f"others can add files to {file.parent}: its mode is {mode:04o}" in capsys.readouterr().err) is warns


def test_every_reader_warns_and_a_privileged_command_refuses(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_capture(file)
    check_owner(file, ())
    assert capsys.readouterr().err == ""
    file.chmod(0o666)
    load_capture(file)
    assert f"warning: others can change {file}: its mode is 0666" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="its mode is 0666"):
        check_owner(file, ())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 41337, 41337)
    check_owner(file, [41337])
    with pytest.raises(ConfigError, match="user 41337 owns it"):
        check_owner(file, [41338])


@pytest.mark.parametrize(
    ("point", "proves"),
    [("/etc/stcp", True), ("/etc/stcp/config.yaml", True), ("/etc", False), ("/", False), ("/somewhere", False)],
)
def test_only_a_mount_of_its_own_says_who_decides(point: str, proves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's ProtectSystem= makes the whole host read-only for one process, and others can still write."""
    state = os.statvfs("/")
    read_only = os.statvfs_result([*state[:8], state.f_flag | os.ST_RDONLY, state[9]])
    monkeypatch.setattr(os, "statvfs", lambda _path: read_only)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"36 25 0:32 / {point} ro,nosuid shared:1 - ext4 /dev/x ro\n")
    assert is_mounted_read_only(Path("/etc/stcp/config.yaml")) is proves
