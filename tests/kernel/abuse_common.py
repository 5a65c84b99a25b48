"""What the parts of the abuse share: its length and seed, counters that survive a killed process, and reloading the module."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

SECONDS: Final = float(os.environ.get("STCP_ABUSE_SECONDS", "600"))
SEED: Final = int(os.environ.get("STCP_ABUSE_SEED", "1"))
FORK: Final = multiprocessing.get_context("fork")
LIBC: Final = ctypes.CDLL(None, use_errno=True)
INIT_MODULE, DELETE_MODULE = 175, 176  # x86-64
PR_SET_PDEATHSIG: Final = 1
LONGEST_DEATH: Final = 90.0
"""Seconds that a killed process may take to die."""
EXPECTED: Final = (OSError, AssertionError, MemoryError, OverflowError)
"""What may go wrong in a process of the abuse. OverflowError: a counter of ours is at its end."""


class Counts:
    """How often each thing was tried, and how often it succeeded, in memory that a killed process leaves behind.

    Each place of a process has a row of its own, so nobody needs a lock.
    """

    def __init__(self, names: Sequence[str], rows: int) -> None:
        self.names = list(dict.fromkeys(names))
        self.rows = rows
        self.row = 0
        self.cells = memoryview(mmap.mmap(-1, rows * len(self.names) * 16)).cast("Q")

    def _at(self, row: int, name: str) -> int:
        return (row * len(self.names) + self.names.index(name)) * 2

    def tried(self, name: str) -> None:
        self.cells[self._at(self.row, name)] += 1

    def good(self, name: str) -> None:
        self.cells[self._at(self.row, name) + 1] += 1

    def of(self, name: str) -> tuple[int, int]:
        """How often it was tried, and succeeded."""
        at, step = self._at(0, name), len(self.names) * 2
        return sum(self.cells[at::step]), sum(self.cells[at + 1 :: step])

    def __str__(self) -> str:
        return ", ".join("{} {}/{}".format(name, *reversed(self.of(name))) for name in self.names)


def reload(module: bytes) -> bool:
    """Try to unload; load again where that worked."""
    if LIBC.syscall(DELETE_MODULE, b"stcp", os.O_NONBLOCK):
        return False
    if LIBC.syscall(INIT_MODULE, module, ctypes.c_ulong(len(module)), b"protocol=253"):
        raise OSError(ctypes.get_errno(), "the module does not load again")
    return True


def bury(process: ForkProcess) -> None:
    """Kill a process, and tell where it hangs if it does not die. It may be killed or have ended; it may not fail."""
    process.kill()
    process.join(LONGEST_DEATH)
    if process.exitcode is None:
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            print(f"{process.pid} does not die:\n{(task / 'stack').read_text()}", flush=True)
        raise AssertionError("a process hangs in the kernel")
    assert process.exitcode in (-signal.SIGKILL, 0), f"a process ended with {process.exitcode}"


def objects() -> int:
    """Objects of kmalloc that are charged to a memory cgroup, as those of the module are. 0 without such caches."""
    for shrink in Path("/sys/kernel/slab").glob("kmalloc-cg-*/shrink"):
        try:
            shrink.write_text("1")
        except OSError:
            continue
    lines = Path("/proc/slabinfo").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("kmalloc-cg-"))
