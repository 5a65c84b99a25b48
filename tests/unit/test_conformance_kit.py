"""The conformance kit stands alone, and its list of cases is sound."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[2] / "conformance"
FILES = sorted(KIT.rglob("*.py"))
LIBRARIES = {"cryptography", "stcp_conformance"}


@pytest.fixture(scope="module")
def cases() -> list[tuple[str, str]]:
    """Id and law of each case."""
    command = [sys.executable, "-m", "stcp_conformance", "--list"]
    lines = subprocess.run(command, cwd=KIT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(line[:80].strip(), line[80:].strip()) for line in lines]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KIT)))
def test_the_kit_imports_cryptography_alone(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names - set(sys.stdlib_module_names) <= LIBRARIES


@pytest.mark.parametrize("path", ["vectors.json", "../tests/vectors/stcp1.json"])
def test_the_kit_computes_what_the_vectors_say(path: str) -> None:
    command = [sys.executable, "-m", "stcp_conformance.vectors", path]
    done = subprocess.run(command, cwd=KIT, capture_output=True, text=True)
    assert re.fullmatch(r"\d{3} passed, 0 failed\n", done.stdout), done.stdout + done.stderr


def test_the_vectors_have_each_suite_and_each_type_of_frame() -> None:
    found = json.loads((KIT / "vectors.json").read_text(encoding="utf-8"))
    assert [vector["suite"] for vector in found["handshakes"]] == [1, 2, 3, 4, 5, 6]
    assert {vector["type"] for vector in found["frames"]} == set(range(7))


def test_each_case_has_a_name_of_its_own(cases: list[tuple[str, str]]) -> None:
    names = [name for name, _ in cases]
    assert len(names) == len(set(names))
    assert len(names) > 600


def test_each_case_names_the_section_of_its_law(cases: list[tuple[str, str]]) -> None:
    assert [name for name, law in cases if not re.match(r"[1-8](, [1-8])*: \S", law)] == []


@pytest.mark.parametrize("role", ["responder", "initiator"])
@pytest.mark.parametrize("section", range(1, 9))
def test_each_section_has_cases_in_both_roles(cases: list[tuple[str, str]], role: str, section: int) -> None:
    if section == 6:  # properties of the suites: nothing to see on the wire
        return
    laws = [law for name, law in cases if name.startswith(f"{role}/")]
    assert any(str(section) in law.partition(":")[0] for law in laws)


def test_each_mutant_fits_the_example() -> None:
    """Its text stands once in the example, and its case exists. `make conformance` runs them."""
    code = (
        "import mutants\n"
        "ids = {case.id for case in mutants.CASES}\n"
        "for name, mutant in mutants.MUTANTS.items():\n"
        "    text = (mutants.HERE / 'examples' / 'node' / mutant.file).read_text(encoding='utf-8')\n"
        "    if text.count(mutant.old) != 1 or mutant.case not in ids:\n"
        "        print(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=KIT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
