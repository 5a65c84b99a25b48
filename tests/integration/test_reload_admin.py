"""A reload opens the admin address, moves it, changes its token and takes it away; with one process and with several."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import forked
from harness.admin import Admin
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import Target, end_of, free_port

from stcp_proxy.admin.client import Unreachable
from stcp_proxy.admin.source_limit import BACKLOG

Config = dict[str, Any]


@pytest.fixture(params=[1, 3])
def proxy(request: pytest.FixtureRequest, tmp_path: Path, echo: Target) -> Iterator[FileProxy]:
    """A proxy without an admin address."""
    keys = Keys(tmp_path)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": echo.to, "allow": str(keys.client.public)}
    config = {"identity": "server.key", "workers": request.param, "sandbox": "off", "tunnels": {"in": tunnel}}
    with FileProxy(tmp_path, "listen", config) as proxy:
        assert isinstance(proxy, FileProxy)
        yield proxy


def serves(admin: Admin, proxy: FileProxy) -> bool:
    """Whether the address answers for all processes."""
    status = admin.status()
    workers = status["process"]["workers"]
    return len(workers) == proxy.config["workers"] and {each["state"] for each in workers} == {"ready"}


def is_gone(admin: Admin) -> bool:
    try:
        admin.ask("/healthz")
    except Unreachable:
        return True
    return False


def reload(proxy: FileProxy, **admin: str) -> Config:
    """Reload with these settings of the admin address. Waits until all processes have done it."""
    config = {name: value for name, value in proxy.config.items() if not name.startswith("admin")} | admin
    proxy.reload(config)
    return config


def test_it_is_opened_and_a_taken_one_changes_nothing(proxy: FileProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = proxy.reload_refused(proxy.config | {"admin": f"127.0.0.1:{taken.getsockname()[1]}"})
        assert "another program is listening there" in refused["why"]
    reload(proxy, admin="127.0.0.1:0")
    admin = Admin(proxy)
    assert serves(admin, proxy)
    assert admin.status()["reloads"]["applied"] == 1
    assert admin.ask("/readyz") == (200, "ready\n")
    assert admin.metric("stcp_workers") == proxy.config["workers"]
    assert proxy.stop() == 0


def test_it_moves_and_old_clients_have_the_time_of_an_answer(proxy: FileProxy) -> None:
    """The answer to the reload itself goes to the old address."""
    reload(proxy, admin=f"127.0.0.1:{free_port()}")
    old = Admin(proxy)
    kept = http.client.HTTPConnection(*old.address)  # type: ignore[misc]
    kept.request("GET", "/healthz")
    assert kept.getresponse().read() == b"ok\n"
    proxy.write(proxy.config | {"admin": f"127.0.0.1:{free_port()}"})
    done = forked.run("reload", "--admin", old.text)
    assert done.returncode == 0, done.stderr
    assert "admin" in done.stdout
    new = Admin(proxy, moved=1)
    assert new.text != old.text
    assert serves(new, proxy)
    assert is_gone(old)
    assert end_of(kept.sock) == ("eof", b"")
    kept.close()
    refused = proxy.reload_refused(proxy.config | {"admin": proxy.config["tunnels"]["in"]["to"]})
    assert "is listening there" in refused["why"]
    assert serves(new, proxy)


def test_a_token_comes_and_goes(proxy: FileProxy, tmp_path: Path) -> None:
    port = free_port()
    reload(proxy, admin=f"127.0.0.1:{port}")
    admin = Admin(proxy)
    (tmp_path / "token").write_text("a-token-of-thirty-two-characters-00\n")
    (tmp_path / "token").chmod(0o600)
    reload(proxy, admin=f"127.0.0.1:{port}", admin_token="token")
    assert admin.ask("/status")[0] == 401
    admin = Admin(proxy, "a-token-of-thirty-two-characters-00")
    assert serves(admin, proxy)
    (tmp_path / "token").write_text("a-token-of-thirty-two-characters-11\n")
    proxy.reload()
    assert admin.ask("/status")[0] == 401
    assert serves(Admin(proxy, "a-token-of-thirty-two-characters-11"), proxy)
    reload(proxy, admin=f"127.0.0.1:{port}")
    assert serves(Admin(proxy), proxy)


def test_a_unix_socket_comes_and_goes_with_its_file(proxy: FileProxy, tmp_path: Path) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    for moved, path in enumerate(paths):
        reload(proxy, admin=f"unix:{path}")
        assert serves(Admin(proxy, moved=moved), proxy)
        assert [each.exists() for each in paths] == [each == path for each in paths]
    last = Admin(proxy, moved=1)
    reload(proxy)
    wait_for(lambda: is_gone(last), words="nobody listens")
    assert not any(path.exists() for path in paths)
    assert proxy.wait_log("admin address closed")
    reload(proxy, admin=f"unix:{paths[0]}")
    assert serves(Admin(proxy, moved=2), proxy)
    assert proxy.stop() == 0
    assert not paths[0].exists()
    assert not proxy.log("admin server failed")


def test_a_flood_of_connections_waits_in_the_kernel(proxy: FileProxy) -> None:
    """Addresses of the start and of a reload are opened by one function (ss(8): Send-Q is the backlog)."""
    address = f"127.0.0.1:{free_port()}"
    reload(proxy, admin=address)
    done = subprocess.run(["ss", "-Hltn", f"src {address}"], capture_output=True, text=True, check=True, timeout=30)
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert [int(line.split()[2]) for line in done.stdout.splitlines()] == [min(BACKLOG, limit)]
