"""Settings of a host that interception has to live with."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.hosts import Net
from harness.sockets import Target

from netns.sidecar import Sidecar
from netns.test_guard import echo, opened

__all__ = ["echo"]


@pytest.mark.parametrize(
    ("setting", "on", "off"),
    [("net.ipv4.ip_nonlocal_bind", "1", "0"), ("net.ipv6.conf.lo.disable_ipv6", "1", "0")],
)
def test_tproxy_serves_ipv4(net: Net, echo: Target, tmp_path: Path, setting: str, on: str, off: str) -> None:
    net.client.run("sysctl", "-qw", f"{setting}={on}")
    try:
        with Sidecar(net, tmp_path, "tproxy") as sidecar, opened(net, net.server.ip4):
            assert "installed" in sidecar.rules("--apply")
    finally:
        net.client.run("sysctl", "-qw", f"{setting}={off}")
