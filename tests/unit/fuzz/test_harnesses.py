"""The harnesses of `make fuzz` run their seeds, without a fuzzer: they fit the code as it is, and every seed keeps its promises.

Past findings are among the seeds, so each stays mended.
"""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
MOST_BYTES = 1_000_000
IN_PYTHON = ("handshake", "frames", "opening", "credential", "proxy_header", "configuration", "admin", "reload", "sessions")
IN_C = ("kernel", "sockets", "lane")
MOST_SEEDS = {"sessions": 20, "reload": 10, "admin": 60}
"""Seeds that a test runs; slow harnesses run fewer."""


@pytest.fixture(autouse=True)
def _importable() -> Iterator[None]:
    sys.path.insert(0, str(PROJECT / "fuzz"))
    yield
    sys.path.remove(str(PROJECT / "fuzz"))


def seeds(name: str) -> list[bytes]:
    corpus = importlib.import_module("stcp_fuzz.corpus")
    table = importlib.import_module("stcp_fuzz.table")
    found = corpus.read_seeds(table.named(name).seeds)
    assert found, f"{name} has no seeds: make fuzz ARGS='--only {name} --keep'"
    return list(found)


def test_every_fuzzer_has_a_test() -> None:
    table = importlib.import_module("stcp_fuzz.table")
    assert {fuzzer.name for fuzzer in table.FUZZERS} == {*IN_PYTHON, *IN_C}


def test_the_seeds_stay_small() -> None:
    assert sum(file.stat().st_size for file in (PROJECT / "fuzz" / "corpus").iterdir()) < MOST_BYTES


@pytest.mark.parametrize("name", IN_PYTHON)
def test_harness_in_python(name: str) -> None:
    """Its seeds, and changes of them that are the same in each run."""
    one = importlib.import_module(f"stcp_fuzz.harnesses.{name}").one
    chance = random.Random(1)
    for seed in seeds(name)[: MOST_SEEDS.get(name, 200)]:
        one(seed)
        changed = bytearray(seed or b"\0")
        changed[chance.randrange(len(changed))] ^= chance.randrange(1, 256)
        one(bytes(changed))


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_C)
def test_harness_in_c(name: str, tmp_path: Path) -> None:
    """Built with gcc and its sanitizers."""
    build = importlib.import_module("stcp_fuzz.build")
    try:
        program = build.build(name, libfuzzer=False)
    except build.CannotBuild as exc:
        pytest.skip(str(exc))
    inputs = seeds(name)
    packed = tmp_path / "inputs"
    packed.write_bytes(b"".join(len(data).to_bytes(4, "big") + data for data in inputs))
    done = subprocess.run([program, packed], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{len(inputs)} inputs\n"
