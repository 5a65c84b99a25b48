"""Builds what pyproject.toml describes; with STCP_COMPILED=1 in the environment, the byte path compiled to C by mypyc as well.

    STCP_COMPILED=1 pip install .

The compiled modules are the same source, and take the interpreter's work off each chunk of bytes; what they bring stands in
docs/PERFORMANCE.md. mypyc (2.4) differs from Python in two ways that matter here, and `make test-compiled` would tell: it may
evaluate a call twice that stands inside the slice of a memoryview, and a tuple taken from a list is not the same object again,
which is why relay/deadlines.py is not among them.
"""

from __future__ import annotations

import os

from setuptools import setup

NEEDED = ["mypy[mypyc]==2.4.1", "cryptography>=48"]  # the second for its types
COMPILED = ["stcp_proxy/protocol/frames.py", "stcp_proxy/relay/duplex.py", "stcp_proxy/relay/pump.py"]


def main() -> None:
    if os.environ.get("STCP_COMPILED", "") in ("", "0"):
        setup()
        return
    try:
        from mypyc.build import mypycify
    except ImportError:  # pip's first look, to learn what a build needs
        setup(setup_requires=NEEDED)
        return
    setup(ext_modules=mypycify(COMPILED, opt_level="3"), setup_requires=NEEDED)


main()
