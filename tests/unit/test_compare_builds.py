"""The comparison of two builds: what is the same, what differs, and inside of which member."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "compare_builds.py"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    return tmp_path / "one", tmp_path / "two"


def compared(folders: tuple[Path, Path]) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, TOOL, *folders], capture_output=True, text=True, timeout=60)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def write_zip(file: Path, second: int) -> None:
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("same", "same")
        opened.writestr(zipfile.ZipInfo("time", (2026, 12, 1, 0, 0, second)), "same")


def write_tar(file: Path, mode: int) -> None:
    with tarfile.open(file, "w:gz") as opened:
        for name, its in (("same", 0o644), ("mode", mode)):
            member = tarfile.TarInfo(name)
            member.size, member.mode = 4, its
            opened.addfile(member, io.BytesIO(b"same"))


def test_the_same(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "SHA256SUMS").write_text("x", encoding="utf-8")
    assert compared(folders) == (0, ["same       SHA256SUMS", "1 of 1 artefacts are the same, byte by byte"])


def test_the_signature_of_a_release_is_left_out(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "SHA256SUMS").write_text("x")
    (folders[0] / "SHA256SUMS.asc").write_text("x")
    assert compared(folders) == (0, ["same       SHA256SUMS", "1 of 1 artefacts are the same, byte by byte"])


def test_members_that_differ(folders: tuple[Path, Path]) -> None:
    for number, folder in enumerate(folders):
        write_zip(folder / "a.whl", 2 * number)
        write_tar(folder / "b.tar.gz", 0o600 + 4 * number)
        (folder / "c.json").write_text("x" * (1 + number), encoding="utf-8")
    status, lines = compared(folders)
    assert status == 1
    assert lines[:3] == ["different  a.whl: time", "different  b.tar.gz: mode", "different  c.json: 1 and 2 bytes"]


def test_an_artefact_that_one_folder_lacks(folders: tuple[Path, Path]) -> None:
    (folders[1] / "x").write_text("x", encoding="utf-8")
    status, lines = compared(folders)
    assert (status, lines[0]) == (1, f"missing    x: only in {folders[1]}")


def test_two_empty_folders_are_no_proof(folders: tuple[Path, Path]) -> None:
    assert compared(folders)[0] == 1


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is missing")
def test_a_debian_package(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.example>\nDescription: x\n", encoding="utf-8"
    )
    for text, folder in zip("ab", folders, strict=True):
        (tree / "file").write_text(text, encoding="utf-8")
        subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, folder / "x.deb"], check=True, capture_output=True)
    status, lines = compared(folders)
    assert status == 1
    assert "./file" in lines[0]
