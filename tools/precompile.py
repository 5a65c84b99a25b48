"""Byte-code of everything that a running proxy imports, made once, for an image whose file system is read-only.

Run by the Dockerfile, with the virtual environment's Python: python -I tools/precompile.py /opt/stcp/cache

- A module that the proxy imports is replaced by its byte-code: its source would be read by nobody. Its docstrings
  go too, except those of the proxy's commands and settings, which are its help. The other modules stay sources, and so does
  a module that reads its own source.
- The standard library belongs to the base. Where the base came without byte-code, as slim images are, it is made in the given
  folder, and the interpreter looks for all byte-code there.
"""

import ast
import importlib
import importlib.util
import marshal
import os
import pkgutil
import py_compile
import sys
import sysconfig
from pathlib import Path

NOT_SERVED = ("stcp_proxy.lab", "stcp_proxy.demo", "stcp_proxy.__main__")
IMPORTED_LATER = (
    *("dns.asyncresolver", "dns._trio_backend", "idna.uts46data"),
    *(f"dns.rdtypes.{name}" for name in ("ANY.CNAME", "ANY.NS", "ANY.OPT", "ANY.SOA", "IN.A", "IN.AAAA", "IN.SRV")),
)
"""Modules that a running proxy imports with the first name that it looks up: it would compile them between two events."""
READS_ITSELF = "install_lazy_importer()"
"""What a module of anyio says that reads its own source: without it, it imports all of anyio at once."""
WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NO_SOURCE = 1
"""The flag of byte-code that is told from others by a hash of its source and is never compared with it."""


def main(folder: Path) -> None:
    sys.dont_write_bytecode = True
    libraries = Path(sysconfig.get_path("purelib"))
    settings = "import sys; sys.dont_write_bytecode = True\n"
    if not Path(importlib.util.cache_from_source(os.__file__)).exists():
        sys.pycache_prefix = str(folder)
        settings = f"import sys; sys.pycache_prefix = {str(folder)!r}; sys.dont_write_bytecode = True\n"
    package = importlib.import_module("stcp_proxy")
    for module in pkgutil.walk_packages(package.__path__, "stcp_proxy."):
        if not module.name.startswith(NOT_SERVED):
            importlib.import_module(module.name)
    for name in IMPORTED_LATER:
        importlib.import_module(name)
    own = libraries / "stcp_proxy"
    if own not in map(Path, package.__path__):
        sys.exit(f"precompile: imported {package.__path__}, not {own}")
    sources = {
        Path(file)
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None)) and file.endswith(".py")
    }
    for source in sorted(sources):
        if libraries in source.parents and READS_ITSELF in source.read_text(encoding="utf-8"):
            py_compile.compile(str(source), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        elif libraries in source.parents:
            # The docstrings of the proxy's commands are its help, those of its settings its reference.
            told = own / "cli" in source.parents or own / "config" in source.parents
            code = compiled(source, str(source.relative_to(libraries)), docstrings=told)
            source.with_suffix(".pyc").write_bytes(code)
            source.unlink()
        elif sys.pycache_prefix is not None:
            py_compile.compile(str(source), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    (libraries / "stcp_precompiled.pth").write_text(settings)
    print(f"{len(sources)} modules compiled")


def compiled(source: Path, shown: str, *, docstrings: bool) -> bytes:
    """The byte-code of a module, as a file that needs no source (PEP 552).

    Args:
        source: the module.
        shown: its name in tracebacks.
        docstrings: keep them.
    """
    text = source.read_bytes()
    tree = ast.parse(text)
    for node in () if docstrings else ast.walk(tree):
        if isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
    code = compile(tree, shown, "exec", dont_inherit=True)
    head = importlib.util.MAGIC_NUMBER + NO_SOURCE.to_bytes(4, "little") + importlib.util.source_hash(text)
    return head + marshal.dumps(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
