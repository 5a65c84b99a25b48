"""An io_uring of its system calls alone, for one operation at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import Final

from .peer import eventually

SETUP, ENTER = 425, 426
CLOSE: Final = 19
# Flags of an operation: the thread that submits it carries it out, or a worker of the ring does (IOSQE_ASYNC).
INLINE, WORKER = 0, 1 << 4
_SQES: Final = 0x10000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Ring:
    """One place for an operation, one for its completion.

    Raises:
        OSError: ENOSYS where the kernel has no io_uring, EPERM where the sysctl kernel.io_uring_disabled forbids it.
    """

    def __init__(self) -> None:
        parameters = ctypes.create_string_buffer(120)  # struct io_uring_params
        self._fd = self._call(SETUP, 1, parameters)
        # The offsets of both rings stand behind forty bytes: head, tail, mask, entries, flags, dropped, array; and
        # head, tail, mask, entries, overflow, completions.
        self._tail, _, _, _, _, self._array = struct.unpack_from("6I", parameters, 44)
        self._completed, _, _, _, self._completions = struct.unpack_from("5I", parameters, 84)
        self._rings = mmap.mmap(self._fd, mmap.PAGESIZE)
        self._operations = mmap.mmap(self._fd, mmap.PAGESIZE, offset=_SQES)

    @staticmethod
    def _call(number: int, *arguments: object) -> int:
        result = int(_LIBC.syscall(number, *arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def submit(self, operation: int, fd: int, flags: int) -> None:
        """Submit the operation of this ring. It may be carried out within, and the thread wait in it as in any system call."""
        struct.pack_into("BBHi", self._operations, 0, operation, flags, 0, fd)
        struct.pack_into("I", self._rings, self._array, 0)
        struct.pack_into("I", self._rings, self._tail, 1)
        assert self._call(ENTER, self._fd, 1, 0, 0, None, 0) == 1

    def result(self, patience: float) -> int:
        """The result of the operation, as soon as its completion is there."""
        eventually(lambda: struct.unpack_from("I", self._rings, self._completed)[0] == 1, "no completion", patience)
        return int(struct.unpack_from("i", self._rings, self._completions + 8)[0])

    def close(self) -> None:
        self._operations.close()
        self._rings.close()
        os.close(self._fd)
