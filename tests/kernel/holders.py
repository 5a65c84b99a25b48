"""Who may still hold the module, told when somebody does whom nobody expects."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from .peer import references, stat


def _tasks() -> list[str]:
    """Tasks in the middle of the module, with their stacks, and processes with sockets."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        name, stack, sockets = "?", "", 0
        with contextlib.suppress(OSError):
            name = (folder / "comm").read_text().strip()
            stack = (folder / "stack").read_text()
            sockets = sum(os.readlink(fd).startswith("socket:") for fd in (folder / "fd").iterdir())
        if "stcp" in stack or sockets:
            found.append(f"task {folder.name} {name}: {sockets} sockets\n{stack}")
    return found


def holders() -> str:
    """References, counters, tasks, TCP connections of this namespace, and sockets of all namespaces by protocol."""
    connections = subprocess.run(["ss", "--tcp", "--all", "--numeric", "--options"], capture_output=True, text=True, check=False)
    protocols = Path("/proc/net/protocols").read_text().splitlines()
    counted = [line for line in protocols if line.split()[2] not in ("0", "-1")]
    return "\n".join([f"{references()} references; {stat()}", *_tasks(), connections.stdout, *counted])
