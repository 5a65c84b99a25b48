"""Restricts a serving process to the files that it needs, so that an attacker inside it reads no others.

Landlock restricts a thread and everything that it starts. So the process enters the sandbox when the plan is known, and before it
starts a thread. Directories are admitted, not files: an editor, a certificate tool and Kubernetes replace a file by a new file,
which a reload has to find.

Landlock does not restrict open sockets and connections to unix sockets. The application of ``stcp-proxy run FILE -- APP`` is not
restricted either: another process starts it.
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
"""Programs that a reload and the check of interception rules execute, and their libraries."""
_SYSTEM: Final = ("/etc", "/proc", "/sys/devices/system/cpu")
"""Files for name look-ups, users and groups, and libraries; the state of this process."""
_RESOLVER: Final = "/etc/resolv.conf"
_DEVICES: Final = {
    "/dev/null": READ | Access.WRITE_FILE,
    "/dev/tty": READ | Access.WRITE_FILE,
    "/dev/pts": READ | Access.WRITE_FILE,
}
_RANDOM: Final = ("/dev/random", "/dev/urandom", "/dev/zero")
_OUTPUT: Final = ("/proc/self/fd/1", "/proc/self/fd/2")

_DENIED: Final = (os.strerror(errno.EACCES), "may not be read by")
"""Texts in the messages of failures that the sandbox can cause."""
_WHY: Final = {
    errno.ENOSYS: "this kernel has no Landlock",
    errno.EOPNOTSUPP: "this kernel has Landlock switched off",
    errno.EPERM: "a filter of system calls refuses Landlock",
}


@dataclass(frozen=True, slots=True)
class State:
    """The state of the sandbox of this process.

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
    """Log the result of `enter`."""
    if _state is None:
        return
    if _state.why is not None:
        _log.info("files are not restricted", why=_state.why, remedy="see docs/SECURITY.md, 'A process that is taken over'")
        return
    fields: dict[str, Any] = {"landlock": _state.landlock, "readable": list(_state.readable)}
    _log.info("files restricted", **fields)


def reading(begin: Read) -> Read:
    """Wrap the reading of the configuration: its failures then name the sandbox, if that may be the cause.

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
    """The directories of the configuration's files and of the targets of symbolic links.

    A file in the root directory stands for itself, because its directory contains every file.
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
    """The directories of programs and libraries: of the system, of this interpreter, and of the loaded libraries."""
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
    """The directories in which this process makes and removes unix sockets."""
    addresses = [tunnel.bind for tunnel in plan.tunnels]
    addresses += [] if plan.admin is None else [plan.admin.address]
    addresses += [] if plan.takeover is None else [plan.takeover]
    for address in addresses:
        if isinstance(address, UnixAddress):
            folder = os.path.dirname(address.path)
            if folder != "/":
                yield folder
