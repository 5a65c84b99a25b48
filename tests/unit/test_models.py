"""The models of handshakes: how they are put together, and what `prove` makes of answers. ProVerif itself is not needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "docs" / "models"
ANSWER = "RESULT not attacker(dataI(A,B,id)) is {}.\n"


def prove(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(MODELS / "prove"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", **environment})


def stand_in(folder: Path, *results: str) -> str:
    """A command that answers as ProVerif does, whatever the model."""
    file = folder / "proverif"
    lines = "".join(f"RESULT claim {result}.\nRESULT (even the weaker claim {result}.)\n" for result in results)
    file.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}END\n")
    file.chmod(0o700)
    return str(file)


def test_without_the_prover_nothing_is_proved_and_it_is_said() -> None:
    done = prove(PROVERIF="/nonexistent/proverif")
    assert done.returncode == 0
    assert "not proved, because the command proverif is missing" in done.stdout


@pytest.mark.parametrize("results", [("true", "true", "false", "true", "true")])
def test_expected_answers_pass(tmp_path: Path, results: tuple[str, ...]) -> None:
    done = prove("1:later", PROVERIF=stand_in(tmp_path, *(f"is {result}" for result in results)))
    assert done.returncode == 0, done.stdout
    assert done.stdout == "suite 1, later: yynyy\n"


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("answer", ["other", "cannot be proved"])
def test_another_answer_to_any_query_fails(tmp_path: Path, at: int, answer: str) -> None:
    results = ["is true", "is true", "is false", "is true", "is true"]
    results[at] = answer if answer != "other" else "is true" if at == 2 else "is false"
    done = prove("1:later", PROVERIF=stand_in(tmp_path, *results))
    assert done.returncode == 1
    assert "WRONG" in done.stdout


def test_a_prover_that_refuses_the_model_fails(tmp_path: Path) -> None:
    assert prove("1:later", PROVERIF=stand_in(tmp_path)).returncode == 1


def test_a_suite_that_does_not_exist_fails() -> None:
    assert prove("9", PROVERIF="/bin/true").returncode == 1


def test_the_table_of_the_readme_is_what_is_expected() -> None:
    assert prove("--table").stdout in (MODELS / "README.md").read_text()


def test_every_suite_of_the_protocol_has_a_model() -> None:
    protocol = (MODELS.parent / "PROTOCOL.md").read_text()
    for suite, noise in re.findall(r"^\| (\d) \| `(Noise_[^`]+)` \|", protocol, re.MULTILINE):
        assert noise in (MODELS / "handshakes" / f"suite{suite}.pv").read_text()
        assert f"suite{suite}" in prove("--write", f"{suite}:later").stdout
