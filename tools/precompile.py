"""Byte-code of everything that a running proxy imports, made once, for an image whose file system is read-only.

Run by the Dockerfile, with the virtual environment's Python: python tools/precompile.py /opt/stcp/cache

- The package keeps its sources. Its byte-code holds the hash of its source and is ignored where the source has changed.
- A library's module that the proxy imports is replaced by its byte-code: its source would be read by nobody. The other modules of
  libraries stay sources.
- The standard library belongs to the base. Where the base came without byte-code, as slim images do, it is made in the given
  folder, and the interpreter looks for all byte-code there.
"""

import importlib
import importlib.util
import os
import pkgutil
import py_compile
import sys
import sysconfig
from pathlib import Path

NOT_SERVED = ("stcp_proxy.lab", "stcp_proxy.demo", "stcp_proxy.__main__")
HASH = py_compile.PycInvalidationMode.CHECKED_HASH
NO_SOURCE = py_compile.PycInvalidationMode.UNCHECKED_HASH


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
    sources = {
        Path(file)
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None)) and file.endswith(".py")
    }
    own = libraries / "stcp_proxy"
    for source in sorted(sources):
        if own in source.parents:
            py_compile.compile(str(source), doraise=True, invalidation_mode=HASH)
        elif libraries in source.parents:
            shown = str(source.relative_to(libraries))
            py_compile.compile(str(source), f"{source}c", dfile=shown, doraise=True, invalidation_mode=NO_SOURCE)
            source.unlink()
        elif sys.pycache_prefix is not None:
            py_compile.compile(str(source), doraise=True, invalidation_mode=HASH)
    (libraries / "stcp_precompiled.pth").write_text(settings)
    print(f"{len(sources)} modules compiled")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
