"""The command: run all fuzzers or one, list them, replay a finding, keep seeds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stcp_fuzz import run
from stcp_fuzz.build import CannotBuild, CompilerFailed
from stcp_fuzz.table import FUZZERS, PROJECT, Fuzzer, named


def main() -> int:
    """Returns the exit status: 1 after a finding, 2 where something is missing."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Coverage-guided fuzzers of stcp-proxy.")
    names = [fuzzer.name for fuzzer in FUZZERS]
    parser.add_argument("--list", action="store_true", help="list the fuzzers, and what they run")
    parser.add_argument("--only", action="append", choices=names, help="run this fuzzer; may be given several times")
    parser.add_argument("--seconds", type=int, help="seconds for each fuzzer [default: 60, or no limit with --runs]")
    parser.add_argument("--runs", type=int, help="inputs for each fuzzer [default: no limit]")
    parser.add_argument(
        "--replay", nargs=2, metavar=("NAME", "FILE"), help="run one input that broke a promise; FILE from the project's folder"
    )
    parser.add_argument("--keep", action="store_true", help="make seeds of what the corpora have grown to, instead of fuzzing")
    asked = parser.parse_args()
    chosen = [named(name) for name in asked.only or names]
    try:
        if asked.list:
            print("\n".join(f"{fuzzer.name:14} {fuzzer.what}" for fuzzer in chosen))
            return 0
        if asked.replay:
            return 1 if run.replay(named(asked.replay[0]), PROJECT / asked.replay[1]) else 0
        if asked.keep:
            for fuzzer in chosen:
                print(f"{fuzzer.name:14} {run.keep(fuzzer)} seeds")
            return 0
        return _fuzz(chosen, asked.seconds or (None if asked.runs else 60), asked.runs)
    except (CannotBuild, CompilerFailed) as exc:
        print(exc, file=sys.stderr)
        return 2


def _fuzz(chosen: list[Fuzzer], seconds: int | None, runs: int | None) -> int:
    failed = 0
    print(f"{'fuzzer':14} {'inputs':>11} {'seconds':>8} {'inputs/s':>9} {'edges':>6}  finding")
    for fuzzer in chosen:
        found = run.fuzz(fuzzer, seconds=seconds, runs=runs)
        rate = found.runs / found.seconds if found.seconds else 0
        said = "none" if found.finding is None else str(found.finding)
        print(f"{fuzzer.name:14} {found.runs:11,} {found.seconds:8.0f} {rate:9,.0f} {found.edges:6}  {said}", flush=True)
        if found.finding is not None:
            failed = 1
            print(f'{found.tail}\n\nrun it again: make fuzz ARGS="--replay {fuzzer.name} {_shown(found.finding)}"', flush=True)
    return failed


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
