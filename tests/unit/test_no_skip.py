"""STCP_NO_SKIP makes a failure of every skip, wherever it is said; and of nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
FINE = """
def test_passes(): pass
@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert False
"""
SKIPS = {
    "mark": "@pytest.mark.skip(reason='no such program')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('no such program')",
    "fixture": "@pytest.fixture\ndef it(): pytest.skip('no such program')\ndef test_it(it): pass",
    "module": "pytest.skip('no such program', allow_module_level=True)",
    "no_parameters": "@pytest.mark.parametrize('it', [])\ndef test_it(it): pass",
}


def run(folder: Path, files: dict[str, str], *, no_skip: bool) -> dict[str, str]:
    """Run pytest once for files of tests. Returns the report about each file's tests and collection.

    Args:
        folder: where the files are written.
        files: their texts by name.
        no_skip: whether STCP_NO_SKIP is set.
    """
    (folder / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{text}", encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name != "STCP_NO_SKIP"} | {"COLUMNS": "300"}
    env |= {"STCP_NO_SKIP": "1"} if no_skip else {}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--continue-on-collection-errors", "-p", "no:cacheprovider", folder]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    return {name: "\n".join(line for line in lines if f"test_{name}.py" in line and line.split()[0].isupper()) for name in files}


@pytest.fixture(scope="module", params=[False, True], ids=["skips allowed", "no skip"])
def reports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, dict[str, str]]:
    """Whether STCP_NO_SKIP is set, and the reports about `SKIPS` and `FINE`."""
    return request.param, run(tmp_path_factory.mktemp("tests"), SKIPS | {"fine": FINE}, no_skip=request.param)


@pytest.mark.parametrize("how", SKIPS)
def test_a_skip_is_a_failure(reports: tuple[bool, dict[str, str]], how: str) -> None:
    no_skip, found = reports
    if no_skip:
        assert found[how].startswith(("FAILED", "ERROR"))
        assert "nothing may be skipped here" in found[how]
    else:
        assert found[how].startswith("SKIPPED")


def test_nothing_else_is(reports: tuple[bool, dict[str, str]]) -> None:
    _, found = reports
    assert [line.split()[0] for line in found["fine"].splitlines()] == ["PASSED", "XFAIL"]
