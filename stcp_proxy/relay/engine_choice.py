"""Choose the engine that carries a tunnel's connections."""

from __future__ import annotations

from stcp_proxy.errors import ConfigError
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.fast_path import compiled, is_missing
from stcp_proxy.relay.kernel import KernelEngine, KernelUnavailable, probe
from stcp_proxy.relay.pump import PumpEngine

_BUILD = "install gcc and Python's headers, then stcp-proxy again"
_LOADED = "the module stcp is loaded"
_OLD = "the module is older than this program, and wire legs are not kept"
_NEW = "build it again as docs/KERNEL.md says, and load it"
_REMEDY = "modprobe stcp, build it as docs/KERNEL.md says, or use engine auto or python"


def choose(choice: str) -> tuple[Engine, str]:
    """Make the engine for a configured choice, without starting it.

    Args:
        choice: ``auto`` takes the kernel engine if the module is loaded, else the user-space engine. ``python`` takes the
            user-space engine. ``kernel`` requires the module.

    Returns:
        The engine, and the reason for the choice.

    Raises:
        ConfigError: the module is required and cannot be used, or STCP_COMPILED requires the fast path and it was not built.
    """
    if is_missing():
        raise ConfigError("STCP_COMPILED is 1, and the byte path was not compiled", remedy=_BUILD)
    if choice == "python":
        return PumpEngine(), _as_built("configured")
    try:
        gives_back = probe()
    except KernelUnavailable as exc:
        if choice == "kernel":
            raise ConfigError(f"engine kernel: {exc.strerror}", remedy=_REMEDY) from None
        return PumpEngine(), _as_built(str(exc.strerror))
    why = "configured" if choice == "kernel" else _LOADED
    return KernelEngine(), why if gives_back else f"{why}; {_OLD}"


def _as_built(why: str) -> str:
    return why if compiled() else f"{why}; not compiled"


def describe_kernel() -> str:
    """Describe what ``engine: auto`` would choose on this machine now."""
    try:
        gives_back = probe()
    except KernelUnavailable as exc:
        built = "compiled" if compiled() else f"not compiled and therefore slower: {_BUILD}"
        return f"kernel engine: not available, {exc.strerror}; engine auto is python, {built}"
    return f"kernel engine: {_LOADED}; engine auto is kernel" + ("" if gives_back else f"; {_OLD}: {_NEW}")
