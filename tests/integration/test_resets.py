"""A reset is carried as a reset, in whatever moment it comes, and what was never there is a reset too."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Pair
from harness.sockets import Target, connect, end_of, free_port, read_exactly, reset

END = tuple[str, bytes]


class Watched:
    """A target that notes how each of its connections ended."""

    def __init__(self, folder: Path) -> None:
        self.ends: queue.Queue[END] = queue.Queue()
        self.go: queue.Queue[str] = queue.Queue()
        self.target = Target(self._serve)
        self.pair = Pair(folder, self.target.to)

    def _serve(self, sock: socket.socket) -> None:
        first = read_exactly(sock, 1)
        if first == b"R":
            sock.sendall(b"now")
            time.sleep(0.05)
            reset(sock)
            return
        if first:
            sock.sendall(first)
        how, data = end_of(sock)
        self.ends.put((how, first + data))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    found = Watched(tmp_path_factory.mktemp("pair"))
    with found.target, found.pair:
        yield found


def test_client_resets(watched: Watched) -> None:
    client = connect(watched.pair.address)
    client.sendall(b"x")
    assert read_exactly(client, 1) == b"x"
    reset(client)
    assert watched.ends.get(timeout=20) == ("reset", b"x")
    channel = watched.pair.connect.ended(reason="plain_reset")[-1]["channel"]
    assert watched.pair.listen.ended(channel=channel)[0]["reason"] == "peer_reset"


def test_server_resets(watched: Watched) -> None:
    with connect(watched.pair.address) as client:
        client.sendall(b"R")
        how, data = end_of(client)
        assert how == "reset"
        assert b"now".startswith(data)


def test_client_resets_before_it_is_through(watched: Watched) -> None:
    """While the handshake is still under way: the target is not reached, or sees a reset, never a clean end."""
    for delay in (0, 0, 0.001, 0.002, 0.004, 0.008, 0.016):
        client = connect(watched.pair.address)
        time.sleep(delay)
        reset(client)
    time.sleep(0.5)
    while not watched.ends.empty():
        assert watched.ends.get()[0] == "reset"


def test_target_refuses(tmp_path: Path) -> None:
    """The client sees a reset at once, both logs say why, and the listening side tells no address."""
    port = free_port()
    with Pair(tmp_path, f"127.0.0.1:{port}") as pair:
        with connect(pair.address) as client:
            client.sendall(b"hello")
            assert end_of(client) == ("reset", b"")
        there = pair.listen.refused(reason="target_refused")[0]
        here = pair.connect.refused(reason="rejected")[0]
        assert there["channel"] == here["channel"]
        assert f"127.0.0.1:{port}" in there["why"]
        assert "remedy" in there
        assert "refused" in here["why"]
        assert str(port) not in here["why"]


def test_target_does_not_answer(tmp_path: Path) -> None:
    """A listener whose backlog is full: TCP's first packet is never answered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        name = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(name)
        with Pair(tmp_path, f"127.0.0.1:{name[1]}", listen=["--dial-timeout", "1"]) as pair, connect(pair.address) as client:
            assert end_of(client) == ("reset", b"")
            pair.listen.refused(reason="target_timed_out")
            assert "did not answer in time" in pair.connect.refused(reason="rejected")[0]["why"]
        for filler in fillers:
            filler.close()


def test_five_hundred_resets_mid_transfer_leak_nothing(tmp_path: Path) -> None:
    """Descriptors, threads and connections of both proxies are what they were before. Every tenth connection fills all buffers
    on the way, so that the proxies hold bytes for a reader that does not read."""
    block, numbers = bytes(1 << 16), itertools.count()

    def pour(sock: socket.socket) -> None:
        def swallow() -> None:
            end_of(sock)

        reader = threading.Thread(target=swallow)
        reader.start()
        fills = next(numbers) % 10 == 0
        try:
            sock.sendall(4 * block)
            while fills:
                sock.sendall(block)
        finally:
            reader.join()

    patient = ["--handshake-timeout", "60s"]  # the connections that pour leave little of a busy machine to new ones
    with Target(pour) as target, Pair(tmp_path, target.to, listen=patient, connect=patient) as pair:
        proxies = (pair.listen, pair.connect)
        _reset_many(pair, 20)
        for proxy in proxies:
            wait_for(lambda proxy=proxy: len(proxy.log("connection closed")) == 20, words="the first ones end")
        before = [(proxy.descriptors(), proxy.threads()) for proxy in proxies]
        _reset_many(pair, 500)
        for proxy, (descriptors, threads) in zip(proxies, before, strict=True):
            closed = proxy.ended(520, timeout=60)
            wait_for(lambda proxy=proxy, n=descriptors: proxy.descriptors() <= n, words=f"{descriptors} descriptors")
            assert proxy.threads() == threads
            assert {line["reason"] for line in closed} <= {"plain_reset", "peer_reset"}
            assert len({line["channel"] for line in closed}) == 520
        assert {line["channel"] for line in pair.listen.log("connection closed")} == {
            line["channel"] for line in pair.connect.log("connection closed")
        }


def _reset_many(pair: Pair, count: int) -> None:
    """`count` connections, 50 at a time, each reset while bytes flow both ways."""
    for start in range(0, count, 50):
        clients = [connect(pair.address) for _ in range(min(50, count - start))]
        for client in clients:
            client.sendall(bytes(1 << 15))
            assert client.recv(1000)
        for client in clients:
            reset(client)
