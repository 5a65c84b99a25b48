"""Builds what pyproject.toml describes, and the user-space engine's fast path in C where there is a compiler.

pip install .                      with it where that can be built, else without
STCP_COMPILED=1 pip install .      with it, or not at all
STCP_COMPILED=0 pip install .      without
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

WANTED = os.environ.get("STCP_COMPILED", "")
FOLDER = Path("stcp_proxy/relay/lane")
LANE = Extension(
    "stcp_proxy.relay._lane",
    sorted(map(str, FOLDER.glob("*.c"))),
    depends=[str(FOLDER / "lane.h")],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-fvisibility=hidden", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"],
    optional=WANTED != "1",
)

setup(ext_modules=[] if WANTED == "0" else [LANE])
