"""Runs one fuzzer for a while, and reads its figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stcp_fuzz.build import build
from stcp_fuzz.corpus import read_seeds, unpack, write_seeds
from stcp_fuzz.table import BUILD, FOLDER, Fuzzer

FINDINGS: Final = BUILD / "findings"
_NUMBERS: Final = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)
_COVERED: Final = re.compile(r"\bcov: (\d+) ft: (\d+)")
_WROTE: Final = re.compile(r"Test unit written to (\S+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one run.

    Attributes:
        runs: inputs that were run.
        seconds: time that it took.
        edges: branches of the instrumented code that all inputs together reach.
        finding: the input that broke a promise; None without one.
        tail: the last lines of its output.
    """

    runs: int
    seconds: float
    edges: int
    finding: Path | None
    tail: str


def command(fuzzer: Fuzzer) -> list[str]:
    """The command that takes libFuzzer's arguments. Builds the fuzzer where that is needed."""
    if fuzzer.in_c:
        return [str(build(fuzzer.name, libfuzzer=True))]
    return [sys.executable, "-m", "stcp_fuzz.python", fuzzer.name]


def grown(fuzzer: Fuzzer) -> Path:
    """The folder of its corpus as it grows; the seeds are put into it."""
    folder = BUILD / "corpus" / fuzzer.name
    unpack(read_seeds(fuzzer.seeds), folder)
    return folder


def fuzz(fuzzer: Fuzzer, *, seconds: int | None, runs: int | None) -> Outcome:
    """Fuzz until the time is over, the runs are done, or an input breaks a promise.

    Args:
        fuzzer: what to run.
        seconds: most seconds; None for no limit.
        runs: most inputs; None for no limit.
    """
    FINDINGS.mkdir(parents=True, exist_ok=True)
    arguments = ["-reload=0", "-entropic=0", "-print_final_stats=1", "-timeout=30", f"-max_len={fuzzer.longest}"]
    arguments += [f"-artifact_prefix={FINDINGS}/{fuzzer.name}-"]
    arguments += [] if seconds is None else [f"-max_total_time={seconds}"]
    arguments += [] if runs is None else [f"-runs={runs}"]
    started = time.monotonic()
    log = BUILD / f"{fuzzer.name}.log"
    with log.open("w") as out:
        code = subprocess.run(
            [*command(fuzzer), *arguments, str(grown(fuzzer))], env=_environment(), stdout=out, stderr=out
        ).returncode
    took = time.monotonic() - started
    text = log.read_text(errors="replace")
    numbers = {name: int(number) for name, number in _NUMBERS.findall(text)}
    covered = _COVERED.findall(text)
    wrote = _WROTE.findall(text)
    finding = Path(wrote[-1]) if wrote else log if code else None
    tail = "\n".join(text.splitlines()[-40:])
    return Outcome(numbers.get("number_of_executed_units", 0), took, int(covered[-1][0]) if covered else 0, finding, tail)


def replay(fuzzer: Fuzzer, file: Path) -> int:
    """Run one input, and return the exit status: not 0 where it breaks a promise."""
    return subprocess.run([*command(fuzzer), str(file)], env=_environment()).returncode


def keep(fuzzer: Fuzzer) -> int:
    """Replace the seeds by inputs of the grown corpus, the smallest first. Returns their number.

    libFuzzer first reduces the corpus of a fuzzer in C to inputs that together reach the same code. It starts itself for that,
    which a fuzzer in Python cannot do; its corpus is small anyway.
    """
    folder = grown(fuzzer)
    if fuzzer.in_c:
        chosen = BUILD / "chosen" / fuzzer.name
        shutil.rmtree(chosen, ignore_errors=True)
        chosen.mkdir(parents=True)
        arguments = ["-merge=1", "-timeout=30", f"-max_len={fuzzer.longest}", str(chosen), str(folder)]
        subprocess.run([*command(fuzzer), *arguments], env=_environment(), check=True, capture_output=True)
        folder = chosen
    return write_seeds(fuzzer.seeds, (file.read_bytes() for file in folder.iterdir()))


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(FOLDER), "PYTHONWARNINGS": "ignore"}
