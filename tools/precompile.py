"""Byte-code of everything that a running proxy imports, the standard library too, in one folder for the interpreter to look into.

For an image whose file system is read-only, on a base that may have come without byte-code: nothing is compiled again at every
start. Each file holds the hash of its source and is ignored where the source has changed. Run by the Dockerfile, with the virtual
environment's Python: python tools/precompile.py /opt/stcp/cache
"""

import importlib
import importlib.util
import pkgutil
import py_compile
import sys
import sysconfig
from pathlib import Path

NOT_SERVED = ("stcp_proxy.lab", "stcp_proxy.demo", "stcp_proxy.__main__")


def main(folder: Path) -> None:
    sys.dont_write_bytecode = True
    sys.pycache_prefix = str(folder)
    package = importlib.import_module("stcp_proxy")
    for module in pkgutil.walk_packages(package.__path__, "stcp_proxy."):
        if not module.name.startswith(NOT_SERVED):
            importlib.import_module(module.name)
    sources = {
        file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None)) and file.endswith(".py")
    }
    for source in sorted(sources):
        cache = importlib.util.cache_from_source(source)
        py_compile.compile(source, cache, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    settings = f"import sys; sys.pycache_prefix = {str(folder)!r}; sys.dont_write_bytecode = True\n"
    (Path(sysconfig.get_path("purelib")) / "stcp_precompiled.pth").write_text(settings)
    print(f"{len(sources)} modules compiled into {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
