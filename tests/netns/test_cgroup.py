"""`intercept --cgroup`: a user is left alone in the proxy's control group, and captured elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Net, as_user
from harness.sockets import Target

from netns.sidecar import PORT, Sidecar
from netns.test_guard import echo

__all__ = ["echo"]
APPLICATION = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10); s.sendall(b'hunter2');"
    "print(s.recv(7).decode())"
)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A control group without processes, for the proxy."""
    root = tmp_path / "cgroup"
    root.mkdir()
    done = subprocess.run(["mount", "-t", "cgroup2", "none", str(root)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cgroup v2 cannot be mounted here: {done.stderr.strip()}")
    folder = root / f"stcp-{os.getpid()}"
    try:
        folder.mkdir()
        yield folder
    finally:
        folder.rmdir()
        subprocess.run(["umount", str(root)], check=True)


def test_the_proxys_user_is_captured_outside_its_group(net: Net, echo: Target, tmp_path: Path, group: Path) -> None:
    net.client.names({"peer.internal": net.server.ip4})  # by number, the peer would be left alone anyway
    with Sidecar(net, tmp_path, "redirect", at="peer.internal", group=group) as sidecar, net.watch() as watch:
        for address in (net.server.ip4, net.server.ip6):
            done = net.client.run(*as_user(), sys.executable, "-c", APPLICATION, address, str(PORT))
            assert done.stdout == "hunter2\n"
        sidecar.connect.ended(2)
    assert b"hunter2" not in watch.raw
    assert (net.server.ip4, PORT) not in watch.dialled
