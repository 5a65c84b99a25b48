"""Builds what pyproject.toml describes, and the user-space engine's short way in C where there is a compiler.

pip install .                      with it where that can be built, else without
STCP_COMPILED=1 pip install .      with it, or not at all
STCP_COMPILED=0 pip install .      without
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

WANTED = os.environ.get("STCP_COMPILED", "")
LANE = Extension(
    "stcp_proxy.relay._lane",
    ["stcp_proxy/relay/lane.c"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"],
    optional=WANTED != "1",
)

setup(ext_modules=[] if WANTED == "0" else [LANE])
