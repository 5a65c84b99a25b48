"""A program in a separate process: start it, watch it through /proc, and stop it reliably."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from harness.forked import Forked

_T = TypeVar("_T")
OUTPUTS: set[Path] = set()
"""The output files of all programs of this session."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def wait_for(what: Callable[[], _T], *, words: str, timeout: float = 60.0) -> _T:
    """Wait for the first true result of `what`, and return it. Raises AssertionError with `words` after the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        result = what()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {words}")
        time.sleep(0.01)


class Process:
    """A program, from start to `stop`; a context manager.

    Args:
        command: program and arguments.
        output: the file for its standard output and standard error.
        env: variables that are added to this process's environment.
    """

    def __init__(self, command: Sequence[str], *, output: Path, env: dict[str, str] | None = None) -> None:
        self.output = output
        OUTPUTS.add(output)
        with output.open("wb") as file:
            self._popen = self._start(command, file, env)

    def _start(self, command: Sequence[str], file: BinaryIO, env: dict[str, str] | None) -> subprocess.Popen[bytes] | Forked:
        added = {**os.environ, **(env or {})}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=added)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._popen.poll()

    def text(self) -> str:
        """The output so far."""
        return self.output.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end. Returns the exit status."""
        return self._popen.wait(timeout)

    def stop(self) -> int:
        """Stop it with SIGTERM, and after a deadline with SIGKILL. Returns the exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()
        for _ in range(40):
            try:
                return self._popen.wait(0.5)
            except subprocess.TimeoutExpired:
                self._hurry()
        self._popen.kill()
        return self._popen.wait()

    def _hurry(self) -> None:
        """Called every half second until the program stops."""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # -- figures -----------------------------------------------------------------------------------------------------------

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def memory(self) -> tuple[int, int]:
        """(resident, proportional) bytes."""
        found = {"Rss": 0, "Pss": 0}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
        return found["Rss"], found["Pss"]

    def cpu_seconds(self) -> float:
        """User and system time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
