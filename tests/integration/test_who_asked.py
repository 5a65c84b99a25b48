"""The log says who asked for a reload or a stop: the kernel's word at a unix socket, the address elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from harness.admin import Admin
from harness.files import FileProxy
from harness.proxies import Keys
from harness.sockets import Target


def config(folder: Path, to: str, admin: str) -> dict[str, Any]:
    keys = Keys(folder)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app"}
    return {"identity": "server.key", "peers": {"app": str(keys.client.public)}, "admin": admin, "tunnels": {"in": tunnel}}


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_reload_and_quit(tmp_path: Path, echo: Target, kind: str) -> None:
    at = f"unix:{tmp_path}/admin.sock" if kind == "unix" else "127.0.0.1:0"
    with FileProxy(tmp_path, "listen", config(tmp_path, echo.to, at)) as proxy:
        admin = Admin(proxy)
        who = f"process {os.getpid()} of user {os.geteuid()}" if kind == "unix" else "127.0.0.1:"
        assert admin.ask("/reload?check=1", "POST")[0] == 200
        assert admin.ask("/reload", "POST")[0] == 200
        lines = proxy.wait_log("reload requested", count=2)
        assert [line["check"] for line in lines] == [True, False]
        assert all(line["who"].startswith(who) for line in lines)
        assert admin.ask("/quit", "POST")[0] == 202
        (line,) = proxy.wait_log("quit requested")
        assert line["who"].startswith(who)
        assert proxy.wait() == 0


def test_a_request_without_the_token_is_not_a_request(tmp_path: Path, echo: Target) -> None:
    (tmp_path / "token").write_text("a-token-that-is-long-enough-to-pass")
    (tmp_path / "token").chmod(0o600)
    with FileProxy(tmp_path, "listen", {**config(tmp_path, echo.to, "127.0.0.1:0"), "admin_token": "token"}) as proxy:
        assert Admin(proxy).ask("/reload", "POST")[0] == 401
        assert Admin(proxy).ask("/quit", "POST")[0] == 401
        assert proxy.log("reload requested") == proxy.log("quit requested") == []
