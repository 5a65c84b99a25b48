"""Imports point downwards, and the protocol does no I/O: every module of the package, read with ast.

Imports inside functions and under TYPE_CHECKING count too: what a module knows about is what it names.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "stcp_proxy"

LEAVES = {"acl", "errors", "protocol", "redact"}
BASE = LEAVES | {"config", "credentials", "keys", "net", "relay"}
SERVING = BASE | {"counters", "handshake", "logs", "session", "spans", "tunnel", "upstream"}

MAY_IMPORT = {
    "acl": set(),
    "errors": set(),
    "redact": set(),
    "protocol": {"errors"},
    "relay": {"protocol", "errors"},
    "net": {"protocol", "errors", "redact"},
    "keys": LEAVES,
    "credentials": {"protocol", "errors", "redact"},
    "ca": LEAVES | {"credentials", "keys"},
    "config": LEAVES | {"credentials", "keys", "net"},
    "counters": {"relay", "protocol", "errors"},
    # The rooms of a connection, in the order in which each builds on the next.
    "process": SERVING | {"agent"},
    "agent": BASE | {"handshake"},
    "tunnel": SERVING - {"logs", "tunnel"},
    "session": BASE | {"counters", "handshake", "logs", "spans", "upstream"},
    "upstream": BASE | {"handshake"},
    "handshake": BASE,
    "logs": {"config", "errors", "redact"},
    "spans": {"config", "errors", "logs", "redact"},
    # These stand beside the rooms above and never import them; the lab drives the product through its public ports.
    "admin": BASE | {"counters"},
    "intercept": LEAVES | {"config", "keys", "net"},
    "demo": LEAVES,
    "lab": LEAVES | {"keys", "net", "relay"},
    "doctor": SERVING | {"intercept", "admin"},
    "cli": SERVING | {"ca", "credentials", "process", "doctor", "intercept", "admin", "demo", "lab"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""For each part of the package, the other parts it may know. The package itself, for its version, is free to all but protocol."""

OUTSIDE = {
    "acl": set(),
    "ca": {"cryptography"},
    "credentials": {"cryptography"},
    "errors": set(),
    "redact": set(),
    "protocol": {"cryptography"},
    "relay": {"trio"},
    "__init__": set(),
}
"""Where only some libraries beside the standard one are allowed, which."""

NO_IO = {
    "asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "select", "selectors", "signal", "socket", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time",
}  # fmt: skip
"""Modules of the standard library for I/O, clocks, logging and the system."""

WITHOUT_IO = {"protocol": NO_IO, "credentials": NO_IO - {"datetime"}}
"""Parts that do no I/O, and what they therefore never import. Certificates carry their times as `datetime` objects."""


def imports(source: str, module: str) -> Iterator[str]:
    """Full names of everything `source` imports.

    Args:
        source: text of the module.
        module: its dotted name, against which relative imports are resolved; a package's ends in ``.__init__``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level]
                base = ".".join([*above, base]) if base else ".".join(above)
            # `from package import name`: the name may be a module.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def faults(source: str, module: str) -> list[str]:
    """What `module` imports and may not."""
    part = module.split(".")[1]
    found = []
    for name in imports(source, module):
        top, *rest = name.split(".")
        if top == "stcp_proxy":
            known = rest[0] if rest else "__init__"
            other = known if known in MAY_IMPORT else "__init__"
            if other == "__init__" and part != "protocol":
                continue
            if other != part and other not in MAY_IMPORT[part]:
                found.append(f"{module} imports {name}")
        elif top not in sys.stdlib_module_names:
            if top not in OUTSIDE.get(part, {top}):
                found.append(f"{module} imports {name}")
        elif top in WITHOUT_IO.get(part, set()):
            found.append(f"{module} imports {name}")
    return found


@functools.cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {".".join(("stcp_proxy", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")}


def test_every_part_has_its_place() -> None:
    assert {name.split(".")[1] for name in modules()} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_downwards(module: str) -> None:
    assert faults(modules()[module].read_text(encoding="utf-8"), module) == []


def test_the_table_has_no_circle() -> None:
    placed: set[str] = set()
    while len(placed) < len(MAY_IMPORT):
        ready = {part for part, known in MAY_IMPORT.items() if part not in placed and known <= placed}
        assert ready, f"a circle among {MAY_IMPORT.keys() - placed}"
        placed |= ready


CIRCLE = {"stcp_proxy.__main__", "stcp_proxy.cli.__init__", "stcp_proxy.cli.start"}
"""The one circle of modules: the command line starts a process that runs the command line."""


def test_no_other_modules_import_each_other_in_a_circle() -> None:
    known = {module.removesuffix(".__init__"): module for module in modules()}

    def targets(module: str, path: Path) -> set[str]:
        names = imports(path.read_text(encoding="utf-8"), module)
        found = {known.get(name) or known.get(name.rpartition(".")[0], "") for name in names}
        return found - {module, ""}

    imported = {module: targets(module, path) for module, path in modules().items()}
    placed = set(CIRCLE)
    while ready := {module for module in imported.keys() - placed if imported[module] <= placed}:
        placed |= ready
    assert imported.keys() - placed == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stcp_proxy.protocol.frames", "import socket"),
        ("stcp_proxy.protocol.frames", "import time as t"),
        ("stcp_proxy.protocol.frames", "from os import urandom"),
        ("stcp_proxy.protocol.frames", "def f():\n    import logging"),
        ("stcp_proxy.protocol.frames", "import trio"),
        ("stcp_proxy.credentials.path", "import time"),
        ("stcp_proxy.credentials.path", "from stcp_proxy.keys import PublicKey"),
        ("stcp_proxy.protocol.frames", "from stcp_proxy import __version__"),
        ("stcp_proxy.protocol.frames", "from stcp_proxy.relay.engine import Handover"),
        ("stcp_proxy.protocol.frames", "from ..relay import engine"),
        ("stcp_proxy.protocol.__init__", "from ..net import dial"),
        (
            "stcp_proxy.relay.pump",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from stcp_proxy.tunnel import session",
        ),
        ("stcp_proxy.relay.pump", "from stcp_proxy import net"),
        ("stcp_proxy.relay.pump", "import structlog"),
        ("stcp_proxy.net.dial", "import stcp_proxy.relay.engine"),
        ("stcp_proxy.lab.bench", "from stcp_proxy.session.SPLIT import Session"),
        ("stcp_proxy.session.listen", "from stcp_proxy.cli import main"),
        ("stcp_proxy.errors", "from stcp_proxy.protocol import wire"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("stcp_proxy.protocol.frames", "import struct\nfrom cryptography.hazmat.primitives.ciphers.aead import AESGCM"),
        ("stcp_proxy.protocol.frames", "from . import wire\nfrom .wire import MAGIC\nfrom stcp_proxy.errors import Code"),
        ("stcp_proxy.relay.pump", "import socket, trio\nfrom stcp_proxy.protocol.frames import Sealer"),
        ("stcp_proxy.cli.main", "import typer\nfrom stcp_proxy import __version__, tunnel"),
    ],
)
def test_a_right_import_is_let_through(module: str, source: str) -> None:
    assert faults(source, module) == []


@pytest.mark.parametrize(
    "package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py") if path.parent.name not in {"cli", "lab"})
)
def test_every_module_stands_on_the_map_of_its_package(package: str) -> None:
    words = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text())) or ""
    modules = {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__"}
    assert {name for name in modules if f"``{name}``" not in words} == set()
