"""STCP_NO_SKIP makes a failure of every skip, wherever it is said; and of nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
FINE = """
import pytest
def test_passes(): pass
@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert False
"""
SKIPS = {
    "mark": "@pytest.mark.skip(reason='no such program')\ndef test_it(): pass",
    "call": "def test_it(): pytest.skip('no such program')",
    "fixture": "@pytest.fixture\ndef it(): pytest.skip('no such program')\ndef test_it(it): pass",
    "module": "pytest.skip('no such program', allow_module_level=True)",
    "no parameters": "@pytest.mark.parametrize('it', [])\ndef test_it(it): pass",
}


def run(folder: Path, text: str, *, no_skip: bool) -> tuple[int, str]:
    """Exit status and output of pytest for one file of tests."""
    (folder / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "test_them.py").write_text(text, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name != "STCP_NO_SKIP"} | (
        {"STCP_NO_SKIP": "1"} if no_skip else {}
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("how", SKIPS)
def test_a_skip_is_a_failure(tmp_path: Path, how: str) -> None:
    text = FINE + SKIPS[how]
    assert run(tmp_path, text, no_skip=False)[0] in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
    status, said = run(tmp_path, text, no_skip=True)
    assert status != 0
    assert "nothing may be skipped here" in said


def test_nothing_else_is(tmp_path: Path) -> None:
    assert run(tmp_path, FINE, no_skip=True)[0] == 0
