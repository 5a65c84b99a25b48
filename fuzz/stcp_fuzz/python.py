"""The process of one fuzzer in Python: coverage-guided by atheris.

python -m stcp_fuzz.python NAME LIBFUZZER-ARGUMENTS…
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Instrument the product, and fuzz until libFuzzer ends the process."""
    import atheris

    name = sys.argv[1]
    with atheris.instrument_imports(include=["stcp_proxy", "hypercorn", "h11", "starlette"]):
        harness = importlib.import_module(f"stcp_fuzz.harnesses.{name}")
    atheris.Setup([sys.argv[0], *sys.argv[2:]], harness.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
