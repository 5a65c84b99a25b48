"""The files that a serving process may reach, and no others: a process that is taken over reads nothing elsewhere.

Landlock restricts a thread and what it starts, so this happens when the plan is known and before any thread is. Directories are
admitted, not files: an editor, a certificate tool and Kubernetes replace a file by another one, which a reload has to find.

Not restricted are sockets, which need no file once they are open; connections to unix sockets; and the application of
``stcp-proxy run FILE -- APP``, which is started by another process.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog

import stcp_proxy
from stcp_proxy.config import Plan
from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import UnixAddress
from stcp_proxy.process import landlock
from stcp_proxy.process.landlock import Access

Read = Callable[[], Callable[[], Plan]]
_T = TypeVar("_T")
_log = structlog.get_logger("stcp_proxy.sandbox")

READ: Final = Access.READ_FILE | Access.READ_DIR
RUN: Final = READ | Access.EXECUTE
BIND: Final = Access.MAKE_SOCK | Access.REMOVE_FILE
"""Make the file of a unix socket, and remove it."""

_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
"""What a reload and the look at rules execute, with its libraries."""
_SYSTEM: Final = ("/etc", "/proc", "/sys/devices/system/cpu")
"""Name look-ups, users and groups, libraries; this process and its limits."""
_RESOLVER: Final = "/etc/resolv.conf"
_DEVICES: Final = {
    "/dev/null": READ | Access.WRITE_FILE,
    "/dev/tty": READ | Access.WRITE_FILE,
    "/dev/pts": READ | Access.WRITE_FILE,
}
_RANDOM: Final = ("/dev/random", "/dev/urandom", "/dev/zero")
_OUTPUT: Final = ("/proc/self/fd/1", "/proc/self/fd/2")

_DENIED: Final = (os.strerror(errno.EACCES), "may not be read by")
"""Words of failures that the sandbox can cause."""
_WHY: Final = {
    errno.ENOSYS: "this kernel has no Landlock",
    errno.EOPNOTSUPP: "this kernel has Landlock switched off",
    errno.EPERM: "a filter of system calls refuses Landlock",
}


@dataclass(frozen=True, slots=True)
class State:
    """What the sandbox of this process is.

    Attributes:
        landlock: the version of the kernel's Landlock; 0 without a sandbox.
        readable: the directories of the configuration that stay readable.
        why: why there is no sandbox; None with one.
    """

    landlock: int
    readable: tuple[str, ...] = ()
    why: str | None = None


_state: State | None = None


def enter(plan: Plan) -> None:
    """Restrict this process to the files of `plan`. Call this before any thread is started.

    Raises:
        ConfigError: the plan requires a sandbox, and the kernel gives none.
    """
    global _state
    if plan.sandbox == "off":
        return
    readable = tuple(sorted(set(directories(plan))))
    version = landlock.abi()
    try:
        with landlock.Ruleset() as rules:
            _admit(rules, plan, readable)
            rules.enforce()
        _state = State(version, readable)
    except OSError as exc:
        if exc.errno == errno.E2BIG:  # a chain of processes that each replaced the one before: restricted already
            _state = State(version, readable)
            return
        why = _WHY.get(exc.errno or 0, f"Landlock: {exc.strerror}")
        if plan.sandbox == "required":
            remedy = "boot a kernel with lsm=landlock (5.13 or later), or set 'sandbox: auto'"
            raise ConfigError(f"the sandbox is required, and cannot be made: {why}", remedy=remedy) from None
        _state = State(0, why=why)


def entered() -> bool:
    """Whether this process is in a sandbox."""
    return _state is not None and _state.landlock > 0


def report() -> None:
    """Log what `enter` has done."""
    if _state is None:
        return
    if _state.why is not None:
        _log.info("files are not restricted", why=_state.why, remedy="see docs/SECURITY.md, 'A process that is taken over'")
        return
    fields: dict[str, Any] = {"landlock": _state.landlock, "readable": list(_state.readable)}
    _log.info("files restricted", **fields)


def reading(begin: Read) -> Read:
    """A way to read the configuration again whose failures name the sandbox where it may be their cause.

    Args:
        begin: starts to read.
    """

    def begin_explained() -> Callable[[], Plan]:
        finish = _explained(begin)
        return lambda: _explained(finish)

    return begin_explained


def _explained(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except ConfigError as exc:
        if not entered() or not any(words in exc.what for words in _DENIED):
            raise
        remedy = "; ".join(filter(None, (exc.remedy, "a directory that the proxy did not use when it started takes a restart")))
        raise ConfigError(exc.what, remedy=remedy) from None


def directories(plan: Plan) -> Iterator[str]:
    """The directories of the configuration's files, and those that symbolic links lead to.

    A file in the root directory is named itself: its directory is everything.
    """
    for path in plan.inputs:
        for found in {path, os.path.realpath(path)}:
            folder = found if os.path.isdir(found) else os.path.dirname(found)
            yield found if folder == "/" else folder


def _admit(rules: landlock.Ruleset, plan: Plan, readable: tuple[str, ...]) -> None:
    rules.admit_all((each for each in _programs() if each != "/"), RUN)
    rules.admit_all((*_SYSTEM, *_RANDOM, *readable), READ)
    resolver = os.path.dirname(os.path.realpath(_RESOLVER))
    if resolver not in ("/", "/run"):
        rules.admit(resolver, READ)
    for path, access in _DEVICES.items():
        rules.admit(path, access)
    rules.admit_all(_OUTPUT, Access.WRITE_FILE)
    rules.admit_all(_socket_folders(plan), BIND)


def _programs() -> Iterator[str]:
    """Where programs and libraries are: of the system, of this interpreter, and what is loaded already."""
    yield from _PROGRAMS
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix)
    yield from (path for path in (*sys.path, *stcp_proxy.__path__) if path)
    yield os.path.dirname(os.path.realpath(sys.executable))
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            mapped = {line.split(None, 5)[5].rstrip("\n") for line in maps if "/" in line}
    except OSError:
        return
    yield from {os.path.dirname(path) for path in mapped if path.startswith("/")}


def _socket_folders(plan: Plan) -> Iterator[str]:
    """Where this process makes and removes unix sockets."""
    addresses = [tunnel.bind for tunnel in plan.tunnels]
    addresses += [] if plan.admin is None else [plan.admin.address]
    addresses += [] if plan.takeover is None else [plan.takeover]
    for address in addresses:
        if isinstance(address, UnixAddress):
            folder = os.path.dirname(address.path)
            if folder != "/":
                yield folder
