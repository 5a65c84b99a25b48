"""Checks of this machine: kernel module, byte path, limits, clock."""

from __future__ import annotations

import datetime
import resource
import time
from pathlib import Path
from typing import Final

from stcp_proxy.config import EngineChoice, Plan
from stcp_proxy.doctor.finding import Finding, Level
from stcp_proxy.relay.fast_path import compiled
from stcp_proxy.relay.kernel import KernelUnavailable, probe
from stcp_proxy.relay.trio_loop import obstacle

BUILT: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
"""This program is younger than this date, so a clock before it is wrong."""
_FEW: Final = 4096
"""Fewer descriptors are a warning where no plan is known."""
_OWN: Final = 64
"""Descriptors that a process needs beside those of connections."""
_BACKLOG: Final = 1024
_PROC: Final = Path("/proc/sys/net")


def look(plan: Plan | None = None) -> list[Finding]:
    """Run every check of this machine.

    Args:
        plan: the plan that is to run here; None where none is known.
    """
    return [_kernel(plan), _byte_path(), _event_loop(), _descriptors(plan), _backlog(), _congestion(), clock(time.time())]


def _kernel(plan: Plan | None) -> Finding:
    needed = plan is not None and any(tunnel.engine is EngineChoice.KERNEL for tunnel in plan.tunnels)
    try:
        probe()
    except KernelUnavailable as exc:
        remedy = "modprobe stcp, or build it as docs/KERNEL.md says"
        if needed:
            return Finding(Level.FAIL, "kernel module", f"a tunnel has engine kernel, and {exc.strerror}", remedy)
        return Finding(Level.OK, "kernel module", f"engine auto is python: {exc.strerror}")
    return Finding(Level.OK, "kernel module", "engine auto is kernel: the module stcp is loaded")


def _byte_path() -> Finding:
    if compiled():
        return Finding(Level.OK, "byte path", "compiled: the user-space engine relays common frames without the interpreter")
    remedy = "install gcc and Python's headers, then stcp-proxy again; unset STCP_COMPILED"
    return Finding(Level.WARN, "byte path", "not compiled: the user-space engine is slower than it could be", remedy)


def _event_loop() -> Finding:
    why = obstacle()
    if not why:
        return Finding(Level.OK, "event loop", "the user-space engine runs in Trio's loop")
    what = f"the user-space engine runs in a thread of its own, which is slower: {why.partition(';')[0]}"
    return Finding(Level.WARN, "event loop", what, "mount /proc")


def _descriptors(plan: Plan | None) -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if plan is None:
        level, what = (Level.WARN if limit < _FEW else Level.OK), f"a process may open {limit}, and a connection needs two"
    else:
        needed = sum(2 * tunnel.max_connections for tunnel in plan.tunnels) // plan.workers + _OWN
        level = Level.WARN if limit < needed else Level.OK
        what = f"a process may open {limit}, and max_connections of all tunnels need {needed}"
    return Finding(
        level, "open files", what, "" if level is Level.OK else "raise LimitNOFILE= or ulimit -Hn, or lower max_connections"
    )


def _backlog() -> Finding:
    value = _read("core/somaxconn")
    if value.isdigit() and int(value) < _BACKLOG:
        what = f"net.core.somaxconn is {value}: a burst of more connections is refused"
        return Finding(Level.WARN, "backlog", what, "sysctl -w net.core.somaxconn=4096")
    return Finding(Level.OK, "backlog", f"net.core.somaxconn is {value or 'not to be read'}")


def _congestion() -> Finding:
    return Finding(Level.OK, "congestion control", f"{_read('ipv4/tcp_congestion_control') or 'not to be read'} towards peers")


def clock(now: float) -> Finding:
    """Check a time, in seconds since 1970."""
    date = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if date < BUILT:
        what = f"it is {date:%Y-%m-%d} here, before this program was made; tunnels do not depend on it, logs do"
        return Finding(Level.WARN, "clock", what, "set it, or let chrony or systemd-timesyncd do so")
    return Finding(Level.OK, "clock", f"{date:%Y-%m-%d %H:%M} UTC; tunnels do not depend on it")


def _read(name: str) -> str:
    try:
        return (_PROC / name).read_text().strip()
    except OSError:
        return ""
