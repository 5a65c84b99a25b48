"""One admin address for several workers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.admin import Admin
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, read_exactly


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, echo: Target) -> Iterator[tuple[Proxy, Proxy]]:
    """A listening side with three workers and an admin address, and a connecting side."""
    folder = tmp_path_factory.mktemp("workers")
    keys = Keys(folder)
    flags = ["--bind", "127.0.0.1:0", "--to", echo.to, "--workers", "3", "--admin", "127.0.0.1:0", *keys.listen()]
    with Proxy(["listen", *flags], log=folder / "listen.log") as listen:
        listen.wait_log("ready", count=3)
        flags = ["--bind", "127.0.0.1:0", "--to", listen.addresses[0], *keys.connect()]
        with Proxy(["connect", *flags], log=folder / "connect.log") as client:
            yield listen, client.ready()


def test_all_workers_are_one(pair: tuple[Proxy, Proxy]) -> None:
    listen, client = pair
    admin = Admin(listen)
    with contextlib.ExitStack() as stack:
        for _ in range(24):
            sock = stack.enter_context(connect(client.address))
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
        status = admin.wait_status(lambda status: status["tunnels"][0]["relayed"] == 24, "all are relayed")
        workers = status["process"]["workers"]
        assert [worker["number"] for worker in workers] == [0, 1, 2]
        assert [worker["state"] for worker in workers] == ["ready"] * 3
        assert sum(worker["open"] for worker in workers) == 24
        assert len({worker["pid"] for worker in workers} - {listen.pid}) == 3
        assert max(worker["open"] for worker in workers) < 24  # one in 10^11 that a single one has all
        assert (status["tunnels"][0]["bytes_to_wire"], status["tunnels"][0]["bytes_to_plain"]) == (120, 120)
        assert status["connections"]["total"] == len(status["connections"]["shown"]) == 24
        assert len({each["worker"] for each in status["connections"]["shown"]}) > 1
        ages = [each["age"] for each in status["connections"]["shown"]]
        assert ages == sorted(ages)
        assert len(admin.status("?connections=5")["connections"]["shown"]) == 5
        assert [(key["connections"], key["total"]) for key in status["keys"]] == [(24, 24), (24, 24)]
        assert admin.metric("stcp_connections_open", peer="app-host") == 24
        assert admin.metric("stcp_handshake_duration_seconds_count") == 24
        assert admin.metric("stcp_bytes_total", direction="to_plain") == 120
        assert admin.metric("stcp_workers") == 3
        assert set(admin.metrics()["process_open_fds"]) == {(("worker", str(number)),) for number in range(3)}
    admin.wait_status(lambda status: status["tunnels"][0]["ended"] == {"finished": 24}, "all have ended")
    assert admin.metric("stcp_connections_closed_total", reason="finished") == 24


def test_one_that_does_not_answer_is_said_to_be_silent(pair: tuple[Proxy, Proxy]) -> None:
    admin = Admin(pair[0])
    silent = admin.status()["process"]["workers"][1]["pid"]
    os.kill(silent, signal.SIGSTOP)
    try:
        status = admin.status()
        assert [worker["state"] for worker in status["process"]["workers"]] == ["ready", "silent", "ready"]
        assert status["process"]["state"] == "starting"
        assert admin.ask("/readyz") == (503, "not ready: starting\n")
    finally:
        os.kill(silent, signal.SIGCONT)
    wait_for(lambda: admin.ask("/readyz")[0] == 200, words="it answers again")
    assert admin.status()["process"]["workers"][1]["pid"] == silent


def test_one_request_ends_all(tmp_path: Path, echo: Target) -> None:
    admin_at = f"unix:{tmp_path}/admin"
    flags = ["--bind", "127.0.0.1:0", "--to", echo.to, "--workers", "2", "--admin", admin_at, *Keys(tmp_path).listen()]
    with Proxy(["listen", *flags], log=tmp_path / "log") as proxy:
        proxy.wait_log("ready", count=2)
        admin = Admin(proxy)
        assert admin.ask("/quit", "POST")[0] == 202
        assert proxy.wait() == 0
        assert len(proxy.log("stopped")) == 2
        assert proxy.log("all workers stopped")
        assert not (tmp_path / "admin").exists()
