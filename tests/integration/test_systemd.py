"""A proxy under a service manager: readiness, watchdog and stop, told by the process that the manager knows."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.peer import Peer
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, free_port

from stcp_proxy.protocol.wire import FrameType

_CREDENTIALS = struct.Struct("3i")


class Manager:
    """The service manager's end of NOTIFY_SOCKET, which sees who is speaking."""

    def __init__(self, path: Path) -> None:
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind(str(path))
        self.sock.settimeout(20)

    def hear(self, verb: str) -> tuple[int, dict[str, str]]:
        """(pid, message): the next one with `verb`."""
        while True:
            data, ancillary, *_ = self.sock.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            pid = _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])[0]
            message = dict(line.split("=", 1) for line in data.decode().splitlines())
            if verb in message:
                return pid, message

    def silence(self) -> bool:
        """Whether no more than what was under way comes for five intervals."""
        self.sock.settimeout(2)
        try:
            for _ in range(4):
                self.sock.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(20)
        return False


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(tmp_path / "notify")
    yield found
    found.sock.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_manager_is_told(tmp_path: Path, manager: Manager, workers: int) -> None:
    keys = Keys(tmp_path)
    with Target() as target:
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen(), "--workers", str(workers)]
        with Proxy(arguments, log=tmp_path / "listen.log", env=manager.env) as proxy:
            pid, message = manager.hear("READY")
            assert pid == proxy.pid  # what others say is not taken, unless NotifyAccess says so
            assert "1 tunnels" in message["STATUS"]
            for _ in range(3):
                assert manager.hear("WATCHDOG")[0] == proxy.pid
            proxy.signal(signal.SIGHUP)  # there is no file: it is refused, and that ends it too
            assert manager.hear("RELOADING")[0] == manager.hear("READY")[0] == proxy.pid
            with connect(proxy.address) as busy:
                busy.sendall(b"S")
                proxy.signal(signal.SIGTERM)
                pid, message = manager.hear("STOPPING")
                assert pid == proxy.pid
                assert int(message["EXTEND_TIMEOUT_USEC"]) > 30_000_000
            assert proxy.wait() == 0


def test_a_worker_that_hangs_silences_the_watchdog(tmp_path: Path, manager: Manager) -> None:
    keys = Keys(tmp_path)
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", "127.0.0.1:1", *keys.listen(), "--workers", "2"]
    with Proxy(arguments, log=tmp_path / "listen.log", env=manager.env) as proxy:
        manager.hear("WATCHDOG")
        children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGSTOP)
        try:
            assert manager.silence()
        finally:
            os.kill(int(children[0]), signal.SIGCONT)
        manager.hear("WATCHDOG")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_process_becomes_the_main_one(tmp_path: Path, manager: Manager, workers: int) -> None:
    """The old one names it, and is silent from then on; the new one is ready, and keeps the watchdog content."""
    keys = Keys(tmp_path)
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", "127.0.0.1:1", *keys.listen(), "--workers", str(workers)]
    arguments += ["--takeover", f"unix:{tmp_path}/takeover"]
    with Proxy(arguments, log=tmp_path / "listen.log", env=manager.env) as proxy:
        proxy.wait_log("ready", count=workers)
        proxy.signal(signal.SIGUSR2)
        pid, message = manager.hear("MAINPID")
        new = int(message["MAINPID"])
        try:
            assert pid == proxy.pid
            assert parent_of(new) not in {proxy.pid, os.getpid()}  # the manager waits at a stop for its own children alone
            assert manager.hear("WATCHDOG")[0] == new  # at once
            assert manager.hear("READY")[0] == new
            assert proxy.wait() == 0
            for _ in range(3):
                assert manager.hear("WATCHDOG")[0] == new
        finally:
            os.kill(new, signal.SIGTERM)
            assert manager.hear("STOPPING")[0] == new


# -- sockets ---------------------------------------------------------------------------------------------------------------


def activated(address: str, *, name: str = "listen") -> tuple[str, ...]:
    """systemd's own tool, which listens, and starts what follows at the first connection."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    return (program, f"--listen={address}", f"--fdname={name}")


def knock(address: tuple[str, int]) -> None:
    """The first connection; it may come before anybody listens."""

    def connected() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(address) == 0

    wait_for(connected, words="somebody listens")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_socket_from_systemd(tmp_path: Path, workers: int) -> None:
    keys, port = Keys(tmp_path), free_port()
    with Target() as target:
        arguments = ["listen", "--bind", f"127.0.0.1:{port}", "--to", target.to, *keys.listen(), "--workers", str(workers)]
        with Proxy(arguments, log=tmp_path / "listen.log", prefix=activated(f"127.0.0.1:{port}")) as proxy:
            knock(("127.0.0.1", port))
            assert proxy.addresses[0] == f"127.0.0.1:{port}"
            proxy.wait_log("ready", count=workers)
            for _ in range(4):
                with connect(("127.0.0.1", port)) as sock:
                    peer = Peer(sock, keys)
                    peer.open()
                    peer.send(FrameType.DATA, b"words")
                    assert peer.receive() == (FrameType.DATA, b"words")
                    peer.send(FrameType.FIN)
                    assert peer.receive() == (FrameType.FIN, b"")
            proxy.signal(signal.SIGTERM)
            assert proxy.wait() == 0


@pytest.mark.parametrize(("bind", "name", "words"), [("127.0.0.2", "listen", "is at 127.0.0.1"), ("127.0.0.1", "web", "'web'")])
def test_a_socket_that_does_not_fit(tmp_path: Path, bind: str, name: str, words: str) -> None:
    keys, port = Keys(tmp_path), free_port()
    arguments = ["listen", "--bind", f"{bind}:{port}", "--to", "127.0.0.1:1", *keys.listen()]
    with Proxy(arguments, log=tmp_path / "listen.log", prefix=activated(f"127.0.0.1:{port}", name=name)) as proxy:
        knock(("127.0.0.1", port))
        assert proxy.wait() == 2
        assert words in proxy.text()
