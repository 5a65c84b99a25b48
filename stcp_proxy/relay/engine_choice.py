"""Which engine carries a tunnel's connections."""

from __future__ import annotations

from stcp_proxy.errors import ConfigError
from stcp_proxy.relay.engine import Engine
from stcp_proxy.relay.fast_path import compiled, is_missing
from stcp_proxy.relay.kernel import KernelEngine, KernelUnavailable, probe
from stcp_proxy.relay.pump import PumpEngine

_BUILD = "install gcc and Python's headers, then stcp-proxy again"
_REMEDY = "modprobe stcp, build it as docs/KERNEL.md says, or use engine auto or python"


def choose(choice: str) -> tuple[Engine, str]:
    """The engine for a configured choice, not started yet, and why it is that one.

    Args:
        choice: ``auto`` takes the kernel's where the module is there and the user-space engine elsewhere, ``python`` the
            user-space engine, ``kernel`` requires the module.

    Raises:
        ConfigError: what is required, of the kernel or by the environment, is not there.
    """
    if is_missing():
        raise ConfigError("STCP_COMPILED is 1, and the byte path was not compiled", remedy=_BUILD)
    if choice == "python":
        return PumpEngine(), _as_built("configured")
    try:
        probe()
    except KernelUnavailable as exc:
        if choice == "kernel":
            raise ConfigError(f"engine kernel: {exc.strerror}", remedy=_REMEDY) from None
        return PumpEngine(), _as_built(str(exc.strerror))
    return KernelEngine(), "configured" if choice == "kernel" else "the module stcp is loaded"


def _as_built(why: str) -> str:
    return why if compiled() else f"{why}; not compiled"


def describe_kernel() -> str:
    """What engine auto would find on this machine now, in words."""
    try:
        probe()
    except KernelUnavailable as exc:
        built = "compiled" if compiled() else f"not compiled and therefore slower: {_BUILD}"
        return f"kernel engine: not available, {exc.strerror}; engine auto is python, {built}"
    return "kernel engine: the module stcp is loaded; engine auto is kernel"
