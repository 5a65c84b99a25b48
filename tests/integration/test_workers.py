"""`workers: N`: several processes behind one address, and one to the operator."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, read_all, read_exactly


class Shared:
    """A pair whose sides both have two workers."""

    def __init__(self, folder: Path, to: str, bind: str = "127.0.0.1:0") -> None:
        self.keys = Keys(folder)
        self.listen = self._proxy("listen", folder, to, "127.0.0.1:0", self.keys.listen())
        self.connect = self._proxy("connect", folder, self.listen.addresses[0], bind, self.keys.connect())

    def _proxy(self, command: str, folder: Path, to: str, bind: str, keys: list[str]) -> Proxy:
        arguments = [command, "--bind", bind, "--to", to, *keys, "--workers", "2", "--drain", "1"]
        arguments += ["--keep", "off"]  # each connection meets either worker of the other side
        proxy = Proxy(arguments, log=folder / f"{command}.log")
        proxy.wait_log("ready", count=2)
        return proxy

    def stop(self) -> None:
        self.connect.stop()
        self.listen.stop()


@pytest.fixture
def shared(tmp_path: Path, echo: Target) -> Iterator[Shared]:
    pair = Shared(tmp_path, echo.to)
    yield pair
    pair.stop()


def exchange(proxy: Proxy, words: bytes) -> None:
    with connect(proxy.address) as client:
        client.sendall(words)
        assert read_exactly(client, len(words)) == words


def children(proxy: Proxy) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()]


def test_both_work_and_their_work_is_summed(shared: Shared) -> None:
    count = 40
    for _ in range(count):
        exchange(shared.connect, b"x" * 100)
    lines = shared.listen.ended(count)
    assert {line["worker"] for line in lines} == {0, 1}
    assert shared.connect.stop() == shared.listen.stop() == 0
    for proxy in (shared.connect, shared.listen):
        (whole,) = proxy.log("all workers stopped")
        assert (whole["workers"], whole["served"], whole["refused"]) == (2, count, 0)
        assert whole["bytes_to_wire"] == whole["bytes_to_plain"] == 100 * count
        parts = proxy.log("stopped")
        assert sum(part["served"] for part in parts) == count


def test_a_second_proxy_is_not_let_in_beside_it(shared: Shared, tmp_path: Path, echo: Target) -> None:
    address = shared.listen.addresses[0]
    second = Proxy(
        ["listen", "--bind", address, "--to", echo.to, *shared.keys.listen(), "--workers", "2"], log=tmp_path / "second.log"
    )
    assert second.wait() == 2
    assert "another program is listening there" in second.text()
    exchange(shared.connect, b"the first goes on")


def test_a_worker_that_dies_stops_the_service(shared: Shared) -> None:
    first, second = children(shared.listen)
    os.kill(first, signal.SIGKILL)
    assert shared.listen.wait() == 1
    (line,) = shared.listen.log("a worker died: stopping the others")
    assert line["pid"] == first
    assert not Path(f"/proc/{second}").exists()


def test_workers_die_with_their_parent(shared: Shared) -> None:
    pids = children(shared.listen)
    os.kill(shared.listen.pid, signal.SIGKILL)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), words="no worker is left")
    with socket.socket() as sock:  # nor does a listener stay on its port
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(shared.listen.address)
        sock.listen()


def test_workers_whose_parent_was_killed_say_so(shared: Shared) -> None:
    """In a line each, and not as a mistake of this program."""
    exchange(shared.connect, b"word")
    os.kill(shared.connect.pid, signal.SIGKILL)
    lines = wait_for(
        lambda: found if len(found := shared.connect.log("stopped: the parent process has ended")) == 2 else None,
        words="both workers have said why",
    )
    assert {line["level"] for line in lines} == {"warning"}
    assert shared.connect.log("the worker failed") == []
    assert "Traceback" not in shared.connect.text()


def test_one_unix_socket_for_all(tmp_path: Path, echo: Target) -> None:
    path = tmp_path / "door"
    pair = Shared(tmp_path, echo.to, bind=f"unix:{path}")
    for _ in range(10):
        exchange(pair.connect, b"through the door")
    with connect(str(path)) as client:
        client.sendall(b"open while it stops")
        assert read_exactly(client, 19) == b"open while it stops"
        pair.stop()
        assert read_all(client) == b""
    assert not path.exists()
