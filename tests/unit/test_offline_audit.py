"""The scan for known weaknesses without PyPI: tools/offline_audit.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "offline_audit.py"
SPEC = importlib.util.spec_from_file_location("offline_audit", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
audit = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(audit)

LOCK = "trio==0.33.0 \\\n    --hash=sha256:00\nPyYAML==6.0.3 ; python_version > '3'\n"


def database(folder: Path, library: str, **more: object) -> Path:
    (folder / "vulns" / library).mkdir(parents=True)
    advisory = {"id": "PYSEC-1", "modified": "2026-11-01T00:00:00Z", "aliases": ["CVE-1"], **more}
    (folder / "vulns" / library / "PYSEC-1.yaml").write_text(yaml.safe_dump(advisory), encoding="utf-8")
    return folder


def about(name: str, **what: object) -> list[dict[str, object]]:
    return [{"package": {"ecosystem": "PyPI", "name": name}, **what}]


def lock_file(folder: Path) -> Path:
    (folder / "lock.txt").write_text(LOCK, encoding="utf-8")
    return folder / "lock.txt"


RANGE = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.34.0"}]}


@pytest.mark.parametrize(
    ("library", "affected"),
    [
        ("trio", about("trio", ranges=[RANGE])),
        ("trio", about("Trio", versions=["0.32.0", "0.33", "no version"])),
        ("pyyaml", about("PyYAML", versions=["6.0.3"])),
    ],
    ids=["range", "version", "name"],
)
def test_a_weakness_is_found(tmp_path: Path, library: str, affected: object) -> None:
    with pytest.raises(SystemExit, match=r"PYSEC-1 \(CVE-1\)"):
        audit.main(database(tmp_path, library, affected=affected), lock_file(tmp_path))


@pytest.mark.parametrize(
    "more",
    [
        {"affected": about("trio", ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.33.0"}]}])},
        {"affected": about("trio", ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}])},
        {"affected": about("trio", ranges=[RANGE]), "withdrawn": "2026-01-01T00:00:00Z"},
        {"affected": about("another", ranges=[RANGE])},
    ],
    ids=["fixed", "git", "withdrawn", "another"],
)
def test_none_is_found(tmp_path: Path, more: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    audit.main(database(tmp_path, "trio", **more), lock_file(tmp_path))
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("newest change of 2026-11-01")
    assert last == "no known weakness"


@pytest.mark.parametrize(
    ("version", "inside"), [("1.0", False), ("1.1", True), ("1.9", True), ("2.0", False), ("3.0", True), ("3.1", False)]
)
def test_ranges(version: str, inside: bool) -> None:
    events = [{"introduced": "1.1"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"last_affected": "3.0"}]
    assert audit.contains(events, Version(version)) is inside


def test_a_folder_that_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no folder vulns"):
        audit.main(tmp_path)
