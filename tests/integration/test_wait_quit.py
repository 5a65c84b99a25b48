"""`stcp-proxy wait` and `stcp-proxy quit`: for whatever starts after a proxy, or has to end it."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from harness import forked
from harness.peer import Peer
from harness.process import wait_for
from harness.proxies import Command, Keys, Proxy
from harness.sockets import Target, connect, free_port

TOKEN = "a-token-that-is-long-enough-to-pass"


class Host:
    """A proxy's file, and what to say to it."""

    def __init__(self, folder: Path, to: str, *, workers: int = 1, token: bool = False) -> None:
        self.folder = folder
        self.keys = keys = Keys(folder)
        self.admin = f"127.0.0.1:{free_port()}"
        self.config = folder / "config.yaml"
        if token:
            (folder / "token").write_text(TOKEN)
            (folder / "token").chmod(0o600)
        self.config.write_text(
            f"identity: server.key\nadmin: '{self.admin}'\nworkers: {workers}\ndrain: 20s\n"
            + ("admin_token: token\n" if token else "")
            + f"tunnels:\n  in: {{mode: listen, bind: '127.0.0.1:0', to: '{to}', allow: '{keys.client.public}'}}\n"
        )

    def start(self, *application: str) -> Proxy:
        return Proxy(["run", str(self.config), *application], log=self.folder / "run.log")


def say(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments)


@pytest.fixture
def host(tmp_path: Path, echo: Target) -> Host:
    return Host(tmp_path, echo.to)


def test_wait_returns_when_the_proxy_is_ready(host: Host, tmp_path: Path) -> None:
    """Begun before there is any proxy."""
    with Command(["wait", str(host.config)], output=tmp_path / "wait.log") as wait:
        with host.start() as proxy:
            assert wait.wait() == 0
            proxy.ready()
            assert say("wait", "--admin", host.admin, "--timeout", "0").returncode == 0
        assert wait.text() == ""


def test_wait_gives_up(host: Host) -> None:
    done = say("wait", str(host.config), "--timeout", "200ms")
    assert done.returncode == 1
    assert f"stcp-proxy: not ready within 0.2 s: no proxy answers at {host.admin}: connection refused" in done.stderr
    done = say("wait", "--admin", host.admin, "--timeout", "0")
    assert done.returncode == 1
    assert f"stcp-proxy: no proxy answers at {host.admin}" in done.stderr


def test_wait_is_not_satisfied_by_somebody_else(tmp_path: Path) -> None:
    def answer(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nwhat")

    with Target(answer) as other:
        done = say("wait", "--admin", other.to)
        assert done.returncode == 1
        assert f"what answers at {other.to} does not say whether it is ready: what" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_quit_lets_connections_finish(tmp_path: Path, echo: Target, workers: int) -> None:
    host = Host(tmp_path, echo.to, workers=workers)
    with host.start() as proxy:
        proxy.wait_log("ready", count=workers)
        with connect(proxy.address) as sock:
            peer = Peer(sock, host.keys)
            peer.open()
            assert say("quit", str(host.config)).returncode == 0
            proxy.wait_log("stopping", count=workers)
            assert proxy.status is None
        assert proxy.wait() == 0


def test_a_proxy_that_drains_is_not_ready(host: Host) -> None:
    with host.start() as proxy:
        proxy.ready()
        with connect(proxy.address) as sock:
            Peer(sock, host.keys).open()
            assert say("quit", "--admin", host.admin).returncode == 0
            proxy.wait_log("stopping")
            done = say("wait", str(host.config), "--timeout", "0")
            assert done.returncode == 1
            assert f"the proxy at {host.admin} is not ready: draining" in done.stderr


def test_quit_ends_the_application_first(host: Host) -> None:
    """Where the proxy runs one, that is what an operator would end."""
    with host.start("--", "sh", "-c", "trap 'echo asked; exit 6' TERM; echo here; while :; do sleep 0.1; done") as proxy:
        wait_for(lambda: "here" in proxy.text(), words="the application runs")
        assert say("quit", str(host.config)).returncode == 0
        assert proxy.wait() == 6
        assert "asked" in proxy.text()


def test_quit_needs_the_token(tmp_path: Path, echo: Target) -> None:
    host = Host(tmp_path, echo.to, token=True)
    with host.start() as proxy:
        proxy.ready()
        done = say("quit", "--admin", host.admin)
        assert done.returncode == 1
        assert "the token of this address is missing or wrong" in done.stderr
        assert say("wait", "--admin", host.admin).returncode == 0  # yes or no is for everybody
        assert proxy.status is None
        done = say("quit", "--admin", host.admin, "--admin-token", str(tmp_path / "token"))
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.wait() == 0


def test_quit_without_a_proxy(host: Host) -> None:
    done = say("quit", str(host.config))
    assert done.returncode == 1
    assert f"no proxy answers at {host.admin}" in done.stderr


def test_quit_waits_for_the_end(host: Host) -> None:
    with host.start() as proxy:
        proxy.ready()
        done = say("quit", str(host.config), "--wait")
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.wait() == 0  # it has ended, or is just about to


def test_quit_gives_up_waiting(host: Host) -> None:
    with host.start() as proxy:
        with connect(proxy.address) as sock:
            Peer(sock, host.keys).open()
            done = say("quit", str(host.config), "--wait", "--timeout", "300ms")
            assert done.returncode == 1
            assert f"the proxy at {host.admin} has not ended within 0.3 s; give a longer --timeout" in done.stderr
            assert proxy.status is None
        assert proxy.wait() == 0
