"""The admin address of a pair that works: what it tells, live, and to whom."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import forked
from harness.admin import Admin
from harness.forked import COMMAND
from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, free_port, read_all, read_exactly

from stcp_proxy.keys import write_secret_file

TOKEN = "a-token-of-sixteen-letters-and-more"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("admin")
    write_secret_file(folder / "admin.token", TOKEN + "\n")
    return folder


@pytest.fixture(scope="module")
def pair(folder: Path, echo: Target) -> Iterator[Pair]:
    """The listening side asks for a token, the connecting side answers at a unix socket."""
    token = ["--admin", "127.0.0.1:0", "--admin-token", str(folder / "admin.token")]
    with Pair(folder, echo.to, listen=token, connect=["--admin", f"unix:{folder}/admin"]) as pair:
        yield pair


@pytest.fixture(scope="module")
def server(pair: Pair) -> Admin:
    return Admin(pair.listen, TOKEN)


@pytest.fixture(scope="module")
def client(pair: Pair) -> Admin:
    return Admin(pair.connect)


def test_an_open_connection_on_both_sides(pair: Pair, server: Admin, client: Admin) -> None:
    with connect(pair.address) as sock:
        sock.sendall(b"ten bytes.")
        assert read_exactly(sock, 10) == b"ten bytes."
        near = client.wait_status(lambda status: status["tunnels"][0]["relayed"] == 1, "the connection is relayed")
        far = server.wait_status(lambda status: status["tunnels"][0]["relayed"] == 1, "the connection is relayed")
        (here,), (there,) = near["connections"]["shown"], far["connections"]["shown"]
        assert here["channel"] == there["channel"] != ""
        assert (here["bytes_to_wire"], here["bytes_to_plain"]) == (there["bytes_to_plain"], there["bytes_to_wire"]) == (10, 10)
        assert here["client"] == f"127.0.0.1:{sock.getsockname()[1]}"
        assert here["target"] == pair.listen.addresses[0]
        assert there["peer"] == "app-host"
        assert (here["engine"], here["tunnel"], there["tunnel"]) == ("python", "connect", "listen")
        assert 0 <= here["age"] < 60
        for status, live in ((near, client), (far, server)):
            assert [key["connections"] for key in status["keys"]] == [1, 1]
            assert [key["own"] for key in status["keys"]] == [True, False]
            assert all(abs(key["last_use"] - time.time()) < 60 for key in status["keys"])
            assert live.metric("stcp_connections_open") == 1
    done = server.wait_status(lambda status: status["tunnels"][0]["open"] == 0, "the connection ends")
    assert done["connections"] == {"total": 0, "order": "newest", "shown": []}
    assert done["tunnels"][0]["ended"]["finished"] >= 1
    assert server.metric("stcp_connections_open", peer="app-host") == 0


def test_bytes_are_live_and_stay_when_the_connection_ends(pair: Pair, client: Admin) -> None:
    before = client.metric("stcp_bytes_total", direction="to_wire")
    with connect(pair.address) as sock:
        for size in (1000, 70_000):
            sock.sendall(bytes(size))
            assert len(read_exactly(sock, size)) == size
        assert client.metric("stcp_bytes_total", direction="to_wire") == before + 71_000
    pair.connect.ended()
    client.wait_status(lambda status: status["tunnels"][0]["open"] == 0, "the connection ends")
    assert client.metric("stcp_bytes_total", direction="to_wire") == before + 71_000
    assert client.status()["tunnels"][0]["bytes_to_wire"] == before + 71_000


def test_the_list_is_as_long_and_in_the_order_that_is_asked_for(pair: Pair, client: Admin) -> None:
    socks = [connect(pair.address) for _ in range(4)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall(bytes(1000 - number))
            assert len(read_exactly(sock, 1000 - number)) == 1000 - number
        names = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in socks]
        newest = client.status("?connections=3")["connections"]
        assert (newest["total"], [each["client"] for each in newest["shown"]]) == (4, names[:0:-1])
        busiest = client.status("?connections=2&order=busiest")["connections"]
        assert [each["client"] for each in busiest["shown"]] == names[:2]
        assert client.status("?tunnel=other")["connections"] == {"total": 0, "order": "newest", "shown": []}
        assert client.status("?connections=0")["connections"]["shown"] == []
    finally:
        for sock in socks:
            sock.close()


@pytest.mark.parametrize("query", ["?connections=1001", "?connections=-1", "?connections=x", "?connections=", "?order=oldest"])
def test_a_query_that_makes_no_sense(client: Admin, query: str) -> None:
    status, words = client.ask(f"/status{query}")
    assert status == 400
    assert " is " in words


def test_a_refusal_comes_with_its_remedy_and_is_counted(pair: Pair, server: Admin, client: Admin) -> None:
    stranger = ["--key", str(pair.keys.folder / "stranger.key"), "--peer", str(pair.keys.server.public)]
    with Proxy(
        ["connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *stranger], log=pair.keys.folder / "stranger.log"
    ) as proxy:
        proxy.ready()
        for _ in range(3):
            with connect(proxy.address) as sock, pytest.raises(ConnectionResetError):
                read_all(sock)
    found = server.wait_status(lambda status: status["tunnels"][0]["refused"].get("unknown_peer") == 3, "all are refused")
    (refusal,) = (each for each in found["refusals"] if each["reason"] == "unknown_peer")
    assert refusal["count"] == 3
    assert refusal["why"] == "the peer's key is not allowed here"
    assert refusal["remedy"] == "if it should be, add the key shown here to 'allow'"
    assert refusal["key"] == str(pair.keys.stranger.public)
    assert server.metric("stcp_connections_refused_total", peer="(unknown)", reason="unknown_peer") == 3
    assert server.metric("stcp_handshakes_total", result="unknown_peer") == 3
    assert client.metric("stcp_handshakes_total", result="unknown_peer") == 0


def test_what_is_timed_is_counted_as_often(server: Admin, client: Admin) -> None:
    for admin in (server, client):
        for step in ("handshake", "dial"):
            good = admin.metric(f"stcp_{step}s_total", result="ok")
            assert good >= 1
            assert admin.metric(f"stcp_{step}_duration_seconds_count") == good
            assert 0 < admin.metric(f"stcp_{step}_duration_seconds_sum") < 60 * good


def test_the_process_itself(pair: Pair, server: Admin, client: Admin) -> None:
    for proxy, admin in ((pair.listen, server), (pair.connect, client)):
        found = admin.status()["process"]
        assert (found["state"], [worker["pid"] for worker in found["workers"]]) == ("ready", [proxy.pid])
        assert abs(admin.metric("process_open_fds") - proxy.descriptors()) <= 3
        assert 10_000_000 < admin.metric("process_resident_memory_bytes") < 500_000_000
        assert admin.metric("process_cpu_seconds_total") > 0
        assert abs(admin.metric("process_start_time_seconds") + found["uptime"] - time.time()) < 30


def test_the_loops_lag_is_measured_once_somebody_asks(client: Admin) -> None:
    client.metrics()
    wait_for(lambda: client.metric("stcp_event_loop_lag_seconds_count") > 0, words="a measurement")


def test_a_scrape_is_what_prometheus_asks_for(server: Admin) -> None:
    status, body = server.ask("/metrics")
    assert status == 200
    assert body.endswith("\n")
    assert "# HELP stcp_bytes_total Application bytes carried" in body
    assert "# TYPE stcp_handshake_duration_seconds histogram" in body


@pytest.mark.parametrize("path", ["/status", "/metrics", "/nothing"])
def test_without_the_token_nothing(pair: Pair, path: str) -> None:
    for admin in (Admin(pair.listen), Admin(pair.listen, TOKEN[:-1] + "x")):
        assert admin.ask(path)[0] == 401


def test_without_the_token_nobody_stops_it(pair: Pair, server: Admin) -> None:
    assert Admin(pair.listen).ask("/quit", "POST")[0] == 401
    assert server.status()["process"]["state"] == "ready"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_who_starts_and_stops_pods_has_no_token(pair: Pair, path: str) -> None:
    assert Admin(pair.listen).ask(path)[0] == 200


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/nothing", "GET", 404), ("/quit", "GET", 405), ("/status", "POST", 405)]
)
def test_other_addresses_and_methods(client: Admin, path: str, method: str, status: int) -> None:
    assert client.ask(path, method)[0] == status


def test_the_unix_socket_is_its_owners_alone(folder: Path) -> None:
    assert os.stat(folder / "admin").st_mode & 0o777 == 0o600


def test_no_log_names_the_token(pair: Pair) -> None:
    assert TOKEN not in pair.listen.text()


def test_what_is_taken_is_said_before_anything_starts(folder: Path, server: Admin, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    flags = ["--bind", "127.0.0.1:0", "--to", "127.0.0.1:1", *keys.connect()]
    with Proxy(["connect", *flags, "--admin", server.text], log=tmp_path / "log") as proxy:
        assert proxy.wait() == 2
        assert "another program is listening there" in proxy.text()
        assert proxy.log() == []


def command(*arguments: str, columns: int = 160) -> subprocess.CompletedProcess[str]:
    return forked.run("status", *arguments, env={"COLUMNS": str(columns)})


def test_status_at_a_terminal(folder: Path, pair: Pair, server: Admin) -> None:
    shown = command("--admin", server.text, "--admin-token", str(folder / "admin.token"))
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in ("ready", "app-host", pair.listen.addresses[0], "LAST USE"):
        assert words in shown.stdout


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_columns_say_how_wide_it_is(folder: Path, pair: Pair, server: Admin, columns: int) -> None:
    shown = command("--admin", server.text, "--admin-token", str(folder / "admin.token"), columns=columns)
    assert max(map(len, shown.stdout.splitlines())) <= columns
    assert ("LAST USE" in shown.stdout) == (columns == 120)
    assert "app-host" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_watch_in_a_pipe(folder: Path, pair: Pair, server: Admin) -> None:
    arguments = ["--admin", server.text, "--admin-token", str(folder / "admin.token"), "--watch", "--interval", "100ms"]
    with subprocess.Popen(
        [*COMMAND, "status", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        seen = []
        while sum(line.startswith("-- ") for line in seen) < 3:
            line = watching.stdout.readline()
            assert line != "", watching.stderr.read()
            seen.append(line)
        watching.stdout.close()  # as `| head` does
        assert watching.wait(60) == 1
        assert watching.stderr.read() == ""
    assert any("B/s" in line for line in seen)


def test_status_from_a_file_whose_keys_cannot_be_read(folder: Path, pair: Pair, client: Admin, tmp_path: Path) -> None:
    tunnel = "{mode: connect, bind: '127.0.0.1:1', to: 'x:2', peer: p}"
    (tmp_path / "c.yaml").write_text(f"identity: nowhere.key\nadmin: {client.text}\ntunnels:\n  t: {tunnel}\n")
    shown = command(str(tmp_path / "c.yaml"), "--json", "--connections", "0")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["process"]["workers"][0]["pid"] == pair.connect.pid


def test_status_where_nobody_is(server: Admin) -> None:
    shown = command("--admin", f"127.0.0.1:{free_port()}")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "no proxy answers at 127.0.0.1:" in shown.stderr
    assert "check that it runs" in shown.stderr
    shown = command("--admin", server.text)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "the token of this address is missing or wrong" in shown.stderr


def test_quit_drains(tmp_path: Path, echo: Target) -> None:
    admin_at = f"127.0.0.1:{free_port()}"
    with Pair(tmp_path, echo.to, connect=["--admin", admin_at]) as pair:
        admin = Admin(pair.connect)
        assert admin.ask("/readyz") == (200, "ready\n")
        with connect(pair.address) as sock:
            sock.sendall(b"before")
            assert read_exactly(sock, 6) == b"before"
            assert admin.ask("/quit", "POST")[0] == 202
            pair.connect.wait_log("stopping")
            assert admin.ask("/readyz") == (503, "not ready: draining\n")
            assert admin.ask("/healthz")[0] == 200
            status = admin.status()
            assert status["process"]["state"] == "draining"
            assert status["tunnels"][0]["listening"] == []
            assert admin.metric("stcp_ready") == 0
            sock.sendall(b"still served")
            assert read_exactly(sock, 12) == b"still served"
        assert pair.connect.wait() == 0
