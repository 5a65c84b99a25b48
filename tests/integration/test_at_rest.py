"""Memory of a proxy at rest, started from nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.proxies import Keys, Proxy

MB = 1_000_000


@pytest.mark.parametrize(("admin", "most"), [((), 45 * MB), (("--admin", "127.0.0.1:0"), 52 * MB)], ids=["plain", "admin"])
def test_memory_at_rest(tmp_path: Path, admin: tuple[str, ...], most: int) -> None:
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", "127.0.0.1:9", *Keys(tmp_path).listen(), *admin]
    with Proxy(arguments, log=tmp_path / "log", fresh=True) as proxy:
        proxy.wait_log("ready")
        assert proxy.memory()[0] < most
        maps = Path(f"/proc/{proxy.pid}/maps").read_text()
        assert bool(re.search(r"libcrypto|libssl", maps)) == bool(admin), "the web server needs ssl"
