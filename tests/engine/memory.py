"""Memory of a container as its control group sees it: what a kubelet compares with requests and limits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from engine import inspect, until

GROUPS = Path("/sys/fs/cgroup")
MIB = 1 << 20
SAMPLES = 100
"""How many times the memory is read at least, ten times a second: probes run meanwhile."""


class Weighed:
    """Reads the working set of a container until it is stopped: all memory of its group but file pages that were not used lately.

    The processes of its probes belong to the group.
    """

    def __init__(self, container: str) -> None:
        self.container = container
        self.samples: list[int] = []
        self._folder, self._usage, self._inactive = files_of(int(inspect(container)["State"]["Pid"]))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the container has ended
            while not self._over.wait(0.1):
                lines = (self._folder / "memory.stat").read_text(encoding="ascii").splitlines()
                inactive = int(next(line.split()[1] for line in lines if line.startswith(f"{self._inactive} ")))
                self.samples.append(int((self._folder / self._usage).read_text(encoding="ascii")) - inactive)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def check(self, when: str) -> None:
        """Print the figures. At any time the memory has to be below the request of the file."""
        settings = inspect(self.container)["HostConfig"]
        request, limit = settings["MemoryReservation"] / MIB, settings["Memory"] / MIB
        low, high = min(self.samples) / MIB, max(self.samples) / MIB
        text = f"memory of {self.container} {when}: {low:.1f} to {high:.1f} MiB, request {request:.0f}, limit {limit:.0f}"
        print(text, flush=True)
        assert 0 < high < request < limit, text


@contextlib.contextmanager
def weighed(container: str, when: str) -> Iterator[Weighed]:
    """Read a container's memory while something happens, and compare it with request and limit."""
    found = Weighed(container)
    try:
        yield found
        until(lambda: len(found.samples) >= SAMPLES, f"the memory of {container} cannot be read")
    finally:
        found.stop()
    found.check(when)


def files_of(pid: int) -> tuple[Path, str, str]:
    """Where the memory of a process is told: its folder, the file of the usage, the name of unused pages in memory.stat."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return GROUPS / "memory" / path.lstrip("/"), "memory.usage_in_bytes", "total_inactive_file"
    assert path, "no control group of version 2"
    return GROUPS / path.lstrip("/"), "memory.current", "inactive_file"
