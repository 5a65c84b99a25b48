"""A proxy that is forked from a process with the product imported is, to the kernel, what a new program would be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from harness.forked import HERE, Place
from harness.hosts import USER, Net
from harness.proxies import Keys, Proxy

STATUS = (
    *("PPid", "Umask", "Uid", "Gid", "Groups", "NoNewPrivs", "Threads", "SigBlk", "SigIgn", "SigCgt"),
    *("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"),
)


@pytest.mark.parametrize("where", ["here", "host", "host and user"])
def test_the_kernel_sees_no_difference(net: Net, tmp_path: Path, where: str) -> None:
    place = {"here": HERE, "host": net.client.place(), "host and user": net.client.place(USER)}[where]
    with tempfile.TemporaryDirectory(prefix="stcp-") as name:  # where another user can get at it
        keys = Keys(Path(name))
        if place.user is not None:
            for path in (name, f"{name}/client.key"):
                os.chown(path, place.user, place.user)
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", "127.0.0.1:9", *keys.connect()]
        forked, fresh = (seen(tmp_path / "log", arguments, place, fresh=fresh) for fresh in (False, True))
    assert forked == fresh


def seen(log: Path, arguments: list[str], place: Place, *, fresh: bool) -> dict[str, Any]:
    with Proxy(arguments, log=log, place=place, fresh=fresh).ready() as proxy:
        proc = Path(f"/proc/{proxy.pid}")
        status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
        found: dict[str, Any] = {name: status[name] for name in STATUS}
        # Every `ip netns exec` makes a mount namespace; its own mounts are compared below.
        links = ["cwd", "root", "exe", *(f"ns/{name}" for name in os.listdir(proc / "ns") if name != "mnt")]
        found |= {link: os.readlink(proc / link) for link in links}
        found["descriptors"] = {fd: os.readlink(proc / "fd" / fd).split("[")[0] for fd in os.listdir(proc / "fd")}
        found["limits"] = (proc / "limits").read_text()
        found["groups"] = os.getpgid(proxy.pid), os.getsid(proxy.pid)
        mounted = [line.split()[4] for line in (proc / "mountinfo").read_text().splitlines()]
        found["mounts"] = sorted(path for path in mounted if path.startswith(("/etc", "/sys")))
        assert proxy.stop() == 0
    return found
