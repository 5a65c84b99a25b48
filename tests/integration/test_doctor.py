"""`stcp-proxy doctor`: every finding that a user can meet, and that it tells no secret and changes nothing."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from harness import forked
from harness.leaks import find_secret
from harness.proxies import Keys, Proxy
from harness.sockets import Target, free_port

MACHINE = {"kernel module", "byte path", "event loop", "open files", "backlog", "congestion control", "clock"}
Findings = dict[str, dict[str, Any]]


def doctor(*arguments: object) -> tuple[int, str]:
    """Exit status and output, which may hold no secret."""
    done = forked.run("doctor", *map(str, arguments))
    assert find_secret((done.stdout + done.stderr).encode()) is None
    assert done.stderr == ""
    return done.returncode, done.stdout


def findings(config: Path) -> tuple[int, Findings]:
    """Exit status and findings by what was looked at."""
    status, out = doctor(config, "--json")
    found: Findings = {each["subject"]: each for each in json.loads(out)}
    assert all(set(each) == {"level", "subject", "what", "remedy"} for each in found.values())
    assert all(each["remedy"] for each in found.values() if each["level"] != "ok")
    assert status == any(each["level"] == "fail" for each in found.values())
    return status, found


class Files:
    """The file of a connecting proxy that nobody has started, and of whom it would talk to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder, Keys(folder)

    def connect(
        self, to: str, *, bind: str = "127.0.0.1:0", identity: str = "client.key", head: str = "", more: str = ""
    ) -> Path:
        path = self.folder / "connect.yaml"
        path.write_text(
            f"identity: {identity}\n{head}"
            f"tunnels: {{out: {{mode: connect, bind: '{bind}', to: '{to}', peer: '{self.keys.server.public}', "
            f"max_connections: 10{more}}}}}\n"
        )
        return path

    def listen(self, to: str, **more: Any) -> Proxy:
        return Proxy(["listen", "--bind", "127.0.0.1:0", "--to", to, *self.keys.listen()], log=self.folder / "listen.log", **more)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_all_is_well(files: Files, echo: Target) -> None:
    with files.listen(echo.to) as proxy:
        to = proxy.addresses[0]
        status, found = findings(files.connect(to))
        assert status == 0
        assert found[f"out: to {to}"]["level"] == "ok"
        assert found[f"out: to {to}"]["what"].endswith("accepts; its target answers")
        assert found["out: bind 127.0.0.1:0"]["what"] == "free"
        assert found["configuration"]["what"].endswith("1 tunnel, every key file private and readable")
        assert found.keys() >= MACHINE
        (line,) = proxy.ended()
        assert (line["level"], line["bytes_to_plain"]) == ("info", 0)


def test_the_second_key_of_a_ring_is_tried(files: Files, echo: Target) -> None:
    files.keys.add("newer")
    with files.listen(echo.to) as proxy:
        to = proxy.addresses[0]
        _, found = findings(files.connect(to, identity="[newer.key, client.key]"))
        assert found[f"out: to {to}"]["level"] == "ok"
        assert "though not by the first key of the file" in found[f"out: to {to}"]["what"]


def test_a_key_that_the_peer_does_not_allow(files: Files, echo: Target) -> None:
    with files.listen(echo.to) as proxy:
        to = proxy.addresses[0]
        status, found = findings(files.connect(to, identity="stranger.key"))
        assert status == 1
        assert "closed the connection during the handshake" in found[f"out: to {to}"]["what"]
        assert "it may not allow this side's key" in found[f"out: to {to}"]["remedy"]


def test_the_target_behind_the_peer_is_down(files: Files) -> None:
    with files.listen(f"127.0.0.1:{free_port()}") as proxy:
        to = proxy.addresses[0]
        status, found = findings(files.connect(to))
        assert status == 1
        assert found[f"out: to {to}"]["what"].startswith(
            "the key is accepted, and the peer refuses the connection: its target refused"
        )


def test_whoever_is_there_is_no_proxy(files: Files) -> None:
    def chatter(sock: socket.socket) -> None:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 400)

    with Target(chatter) as other:
        status, found = findings(files.connect(other.to))
        assert status == 1
        assert found[f"out: to {other.to}"]["level"] == "fail"
        assert found[f"out: to {other.to}"]["what"].endswith("its first bytes look like SSH")


def test_a_peer_that_is_silent_and_one_that_is_not_there(files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"127.0.0.1:{silent.getsockname()[1]}"
        _, found = findings(files.connect(to, more=", handshake_timeout: 300ms"))
        assert found[f"out: to {to}"]["what"] == "the peer did not answer the handshake within 0.3 s"
    status, found = findings(files.connect(to))
    assert status == 1
    assert found[f"out: to {to}"]["what"] == "connection refused"


def test_ports(files: Files, echo: Target) -> None:
    """Taken by a stranger, by nobody knows whom, and by the proxy itself."""
    admin = f"127.0.0.1:{free_port()}"
    with files.listen(echo.to) as peer, socket.create_server(("127.0.0.1", 0)) as taken:
        to, bind = peer.addresses[0], f"127.0.0.1:{taken.getsockname()[1]}"
        status, found = findings(files.connect(to, bind=bind))
        assert (status, found[f"out: bind {bind}"]["level"]) == (0, "warn")
        status, found = findings(files.connect(to, bind=bind, head=f"admin: '{admin}'\n"))
        assert (status, found[f"out: bind {bind}"]["level"]) == (1, "fail")
        assert found[f"admin {admin}"]["what"] == "free: this proxy does not run now"
        taken.close()
        config = files.connect(to, bind=bind, head=f"admin: '{admin}'\n")
        with Proxy(["run", str(config)], log=files.folder / "run.log") as proxy:
            proxy.ready()
            status, found = findings(config)
        assert status == 0
        assert found[f"admin {admin}"]["what"] == "a proxy runs and answers"
        assert found[f"out: bind {bind}"]["what"].startswith("in use, as expected while this proxy is running")


def test_an_admin_address_where_somebody_else_answers(files: Files) -> None:
    def answer(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhat")

    with Target(answer) as other:
        _, found = findings(files.connect(f"127.0.0.1:{free_port()}", head=f"admin: '{other.to}'\n"))
        assert found[f"admin {other.to}"]["level"] == "fail"


def test_a_table_for_people(files: Files) -> None:
    (files.folder / "client.key").chmod(0o644)
    status, out = doctor(files.connect("127.0.0.1:1"))
    assert status == 1
    assert "fail" in out
    assert "chmod 600" in out
    assert "→" in out


def test_this_machine_alone() -> None:
    status, out = doctor("--json")
    assert {each["subject"] for each in json.loads(out)} == MACHINE
    assert status == 0
