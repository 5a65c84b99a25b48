"""The command: python -m stcp_conformance CONFIG"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from pathlib import Path

import stcp_conformance.cases  # noqa: F401
from stcp_conformance import config, report
from stcp_conformance.registry import CASES
from stcp_conformance.run import run


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m stcp_conformance", description="Conformance cases of STCP/1 for an implementation."
    )
    found.add_argument("config", type=Path, nargs="?", help="the file that describes the implementation (README.md)")
    found.add_argument(
        "--case", action="append", metavar="PATTERN", help="only cases whose id matches, such as 'responder/*tag*'"
    )
    found.add_argument("--word", action="append", default=[], metavar="NAME=VALUE", help="a further placeholder {NAME}")
    found.add_argument("--quick", action="store_true", help="leave out the cases that take seconds")
    found.add_argument("--list", action="store_true", help="list the cases and the laws, and run none")
    found.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    found.add_argument("--verbose", action="store_true", help="print what each case saw")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 when no case failed, 1 when one did, 2 for a wrong call."""
    options = parser().parse_args(arguments)
    patterns = options.case or ["*"]
    cases = [case for case in CASES if any(fnmatch.fnmatchcase(case.id, pattern) for pattern in patterns)]
    if options.quick:
        cases = [case for case in cases if not case.slow]
    if options.list:
        for case in cases:
            print(f"{case.id:80} {case.law}")
        return 0
    if options.config is None or not cases:
        parser().print_usage()
        return 2
    start = time.monotonic()
    implementation = config.read(options.config, dict(word.split("=", 1) for word in options.word))

    def tell(result: report.Result) -> None:
        print(result.line(), flush=True)
        if options.verbose:
            print(f"{'':15}{result.seen} ({result.seconds:.2f} s)")

    results = run(implementation, cases, tell)
    print(report.summary(implementation.name, results, time.monotonic() - start))
    if options.json:
        options.json.write_text(report.as_json(implementation.name, results), encoding="utf-8")
    return 1 if any(result.result == report.FAILED for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
