"""The generator in C: what it prints, and that it measures what it says, on real sockets."""

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.loadgen import LabError

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the load generator")


@pytest.fixture
def server() -> Iterator[int]:
    with loadgen.echo_server() as port:
        yield port


def test_a_line_of_json_becomes_a_load() -> None:
    load = loadgen.parse(
        '{"mode":"rt","rate":10.5,"total":21,"mean":1,"p50":2,"p90":3,"p99":4,"p999":5,"max":6,"errors":0,"cpu":1}'
    )
    assert (load.rate, load.total, load.p99, load.max) == (10.5, 21, 4, 6)


@pytest.mark.parametrize("line", ["", "{", "{}", "[]", "null", '{"rate":1}'])
def test_anything_else_is_an_error(line: str) -> None:
    with pytest.raises(LabError, match="printed"):
        loadgen.parse(line)


def test_it_is_compiled_once_and_outside_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = loadgen.binary()
    before = first.stat().st_mtime_ns
    assert first.is_relative_to(tmp_path)
    assert loadgen.binary().stat().st_mtime_ns == before
    assert os.listdir(first.parent) == [first.name]


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="install gcc"):
        loadgen.binary()


@pytest.mark.parametrize(("connections", "size"), [(1, 1), (3, 256), (50, 256), (2, 1 << 20)])
def test_round_trips(server: int, connections: int, size: int) -> None:
    load = loadgen.round_trips(server, connections=connections, size=size, seconds=0.2)
    assert load.total >= max(connections, load.rate * 0.2)
    assert load.p50 is not None
    assert load.p99 is not None
    assert load.max is not None
    assert load.p50 <= load.p99 <= load.max * 1.01


def test_bulk_counts_what_arrived(server: int) -> None:
    load = loadgen.bulk(server, connections=2, seconds=0.3)
    assert load.total > 1 << 20
    assert load.rate >= 0


def test_new_connections(server: int) -> None:
    load = loadgen.new_connections(server, clients=4, seconds=0.2)
    assert load.errors == 0
    assert load.total > 4


def test_idle_connections_are_held_until_the_end(server: int) -> None:
    with loadgen.idle(server, 30):
        assert _established(server) == 30
    assert _established(server) == 0


def _established(port: int) -> int:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return sum(1 for field in fields if field[2].endswith(f":{port:04X}") and field[3] == "01")


def test_inherited_sockets() -> None:
    near, far = socket.socketpair()
    echo = threading.Thread(target=_echo, args=(far,))
    echo.start()
    with near:
        assert loadgen.round_trips([near.fileno()], connections=1, size=100, seconds=0.1).total > 0
    echo.join()


def _echo(sock: socket.socket) -> None:
    with sock, contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            sock.sendall(data)


def test_an_answer_that_differs_is_an_error() -> None:
    near, far = socket.socketpair()

    def corrupt() -> None:
        with far:
            far.sendall(far.recv(65536))
            far.sendall(bytes(byte ^ 1 for byte in far.recv(65536)))
            far.recv(1)

    liar = threading.Thread(target=corrupt)
    liar.start()
    with near, pytest.raises(LabError, match="differs"):
        loadgen.round_trips([near.fileno()], connections=1, size=100, seconds=0.5)
    liar.join()


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(LabError, match="refused"):
        loadgen.round_trips(port, connections=1, size=1, seconds=0.1)
