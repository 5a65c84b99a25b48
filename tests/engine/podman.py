"""Podman on a machine that may lack systemd, a second version of cgroups, and the right to raise limits."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CRUN = Path(__file__).with_name("crun")
DEADLINE = 120.0
"""Seconds for anything to happen."""


class Podman:
    """An engine with a store of its own."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.options = (
            *("--storage-driver", "vfs", "--root", str(work / "store"), "--runroot", str(work / "runroot")),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", str(CRUN)),
        )
        # podman-compose calls `podman`.
        self.bin = work / "bin"
        self.bin.mkdir()
        wrapper = self.bin / "podman"
        wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/podman {" ".join(self.options)} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
        self.environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"}

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None, fails: bool = False) -> str:
        """Run a command of Podman.

        Args:
            arguments: of the command.
            stdin: what it reads.
            fails: it may fail.

        Returns:
            What it printed, without the last line break.
        """
        done = subprocess.run(
            [self.bin / "podman", *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
        )
        output = done.stdout.decode(errors="replace").strip()
        assert fails or done.returncode == 0, f"podman {' '.join(map(str, arguments))}: {output}"
        return output

    def compose(self, folder: Path, *arguments: str) -> str:
        """Run a command of podman-compose in a folder; return what it printed."""
        done = subprocess.run(
            ["podman-compose", *arguments],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output
        return output

    def state(self, container: str) -> dict[str, Any]:
        """The state of a container, as the engine has it."""
        state: dict[str, Any] = json.loads(self("inspect", "--format", "{{json .State}}", container))
        return state

    def healthy(self, container: str) -> bool:
        """Run the image's health check, as the engine's timer does where there is systemd."""
        return self("healthcheck", "run", container, fails=True) == "" and self.state(container)["Running"]

    def logs(self, container: str) -> str:
        """What a container has printed."""
        return self("logs", container, fails=True)


def until(condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Wait for a condition; fail with what `otherwise` says."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.2)
