"""STCP_NO_SKIP makes a failure of every skip, wherever it is said; and of nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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


class Reports(NamedTuple):
    """What pytest reports.

    Attributes:
        no_skip: whether STCP_NO_SKIP is set.
        about: the lines about each file's tests and collection.
        reasons: how often the refusal's own words are said.
    """

    no_skip: bool
    about: dict[str, str]
    reasons: int


def run(folder: Path, files: dict[str, str], *, no_skip: bool) -> Reports:
    """Run pytest once for files of tests.

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
    about = {name: "\n".join(line for line in lines if f"test_{name}.py" in line and line.split()[0].isupper()) for name in files}
    return Reports(no_skip, about, done.stdout.count("nothing may be skipped here (STCP_NO_SKIP)"))


@pytest.fixture(scope="module", params=[False, True], ids=["skips allowed", "no skip"])
def reports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """The reports about `SKIPS` and `FINE`."""
    return run(tmp_path_factory.mktemp("tests"), SKIPS | {"fine": FINE}, no_skip=request.param)


@pytest.mark.parametrize("how", SKIPS)
def test_a_skip_is_a_failure(reports: Reports, how: str) -> None:
    assert reports.about[how].startswith(("FAILED", "ERROR") if reports.no_skip else "SKIPPED")


def test_the_failure_says_why(reports: Reports) -> None:
    """Its summary has the words too, but not in every release of pytest."""
    assert reports.reasons >= len(SKIPS) if reports.no_skip else reports.reasons == 0


def test_nothing_else_is(reports: Reports) -> None:
    assert [line.split()[0] for line in reports.about["fine"].splitlines()] == ["PASSED", "XFAIL"]
