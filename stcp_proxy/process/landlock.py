"""Landlock: this process gives up the right to reach files, for itself and for every process that it starts.

The kernel interface is three system calls, described in linux/landlock.h and landlock(7). The C library has no functions for
them. A rule names a file or a directory by its inode, and holds for everything below a directory. What no rule admits is refused,
to root too. Restrictions are never lifted; a program that is executed keeps them.
"""

from __future__ import annotations

import ctypes
import enum
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
"""Numbers of system calls: the same on every architecture that CPython supports on Linux."""
_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38


class Access(enum.IntFlag):
    """Rights of LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_ALL: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights, by the first ABI that knows them."""
_OF_FILES: Final = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""Rights that a rule about a file may name; the others are about directories."""


def abi() -> int:
    """The version of Landlock that this kernel has; 0 for none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION)[0])


class Ruleset:
    """A set of rules, which `enforce` applies to this process; a context manager.

    Raises:
        OSError: the kernel has no Landlock, or a filter of system calls refuses it.
    """

    def __init__(self) -> None:
        version = _checked(_CREATE_RULESET, None, 0, _VERSION)
        self._handled: Final = _ALL[max(first for first in _ALL if first <= version)]
        self._fd = _checked(_CREATE_RULESET, struct.pack("=Q", self._handled), 8, 0)

    def admit(self, path: str, access: Access) -> bool:
        """Admit a file, or everything below a directory.

        Returns:
            False if the path does not exist, or if Landlock has no rules for its kind, for example a pipe.
        """
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            rights = int(access) & self._handled
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= _OF_FILES
            rule = struct.pack("=Qi", rights, fd)
            return rights != 0 and _call(_ADD_RULE, self._fd, _RULE_PATH_BENEATH, rule, 0)[0] == 0
        finally:
            os.close(fd)

    def admit_all(self, paths: Iterable[str], access: Access) -> None:
        """Admit each of `paths`."""
        for path in paths:
            self.admit(path, access)

    def enforce(self) -> None:
        """Restrict the calling thread, and every thread and process that it starts from now on.

        The kernel requires no_new_privs: an executed program then gets no privileges from its file.

        Raises:
            OSError: the kernel refuses; E2BIG if this process has inherited sixteen sets of rules.
        """
        if _library().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        _checked(_RESTRICT_SELF, self._fd, 0)

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> tuple[int, int]:
    """The result of a system call, and errno."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    syscall = _library().syscall
    syscall.restype = ctypes.c_long
    return syscall(ctypes.c_long(number), *given), ctypes.get_errno()


def _checked(number: int, *arguments: int | bytes | None) -> int:
    result, failure = _call(number, *arguments)
    if result < 0:
        raise OSError(failure, os.strerror(failure))
    return result
