"""Let memory allocations of the kernel fail at random (Documentation/fault-injection of Linux)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

FAULTS: Final = [Path("/sys/kernel/debug/failslab"), Path("/sys/kernel/debug/fail_page_alloc")]


def inject(probability: int) -> None:
    """Make allocations fail, `probability` of a hundred, in the kernel's workers; our workers ask for it while they hand over."""
    for folder in FAULTS:
        if not folder.exists():
            continue
        # The probability last: until the filter stands, everybody's would fail.
        settings: dict[str, int | str] = {"task-filter": "Y", "times": -1, "verbose": 0}
        # Not the pages of programs: without those even the messages of the kernel are about them.
        settings |= {"ignore-gfp-wait": "N", "ignore-gfp-highmem": "Y", "min-order": 0, "probability": probability}
        for name, value in settings.items():
            if (folder / name).exists():
                (folder / name).write_text(str(value))
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and Path(f"/proc/{entry}/comm").read_text().startswith("kworker/u"):
                Path(f"/proc/{entry}/make-it-fail").write_text("1")


class Faults:
    """While entered, this process's allocations may fail too. Its file stays open: opening one could fail by then."""

    def __init__(self) -> None:
        path = Path("/proc/self/make-it-fail")
        self.fd = os.open(path, os.O_WRONLY) if path.exists() else -1

    def __enter__(self) -> None:
        if self.fd >= 0:
            os.pwrite(self.fd, b"1", 0)

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.pwrite(self.fd, b"0", 0)
