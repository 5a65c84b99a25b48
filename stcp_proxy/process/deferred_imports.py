"""Import some modules at their first use instead of at once.

Trio and structlog import modules that serve nothing in a proxy: Trio's own TLS streams need ssl, structlog's bridge to logging
needs asyncio. These modules take a tenth of the memory of a proxy at rest. `defer` puts a placeholder into sys.modules in their
place. The first access to an attribute imports the module, so a program that needs it after all gets it.

Without ssl, only hashlib would load OpenSSL's libcrypto from the system, beside the OpenSSL that `cryptography` contains. So
hashlib is imported with the hash functions of Python itself, where the interpreter has all of them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_HASHES: Final = ("_md5", "_sha1", *(("_sha2",) if sys.version_info >= (3, 12) else ("_sha256", "_sha512")), "_sha3", "_blake2")
"""The modules of Python's own hash functions. Some distributions leave them out."""

_lock = threading.Lock()


class _Placeholder(ModuleType):
    """Stands in sys.modules for a module that is not imported yet."""

    def __getattr__(self, name: str) -> Any:
        module = self.__name__
        with _lock:
            if sys.modules.get(module) is self:
                del sys.modules[module]
        return getattr(importlib.import_module(module), name)


def defer(names: Iterable[str]) -> None:
    """Import modules at their first use. A module that is imported already is left alone.

    Args:
        names: full names of modules. For a submodule, the package must not have been imported yet. A package whose submodules
            may be imported before it is used is not for this: such a submodule would be imported twice.
    """
    for name in names:
        if name not in sys.modules:
            placeholder = _Placeholder(name)
            placeholder.__spec__ = ModuleSpec(name, None)
            sys.modules[name] = placeholder


@contextlib.contextmanager
def without(names: Iterable[str]) -> Iterator[None]:
    """Let imports of modules fail meanwhile, as if they were not installed.

    Args:
        names: names of modules. One that is imported already is left alone.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None stands for a module that cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def deferred() -> list[str]:
    """The names of the modules that have not been used yet."""
    return [name for name, module in sys.modules.items() if isinstance(module, _Placeholder)]


def import_hashlib() -> None:
    """Import hashlib and hmac without OpenSSL, if Python has all hash functions itself."""
    if "hashlib" in sys.modules or "_hashlib" in sys.modules:
        return
    if all(importlib.util.find_spec(name) is not None for name in _HASHES):
        with without(["_hashlib"]):
            import hashlib  # noqa: F401
            import hmac  # noqa: F401
