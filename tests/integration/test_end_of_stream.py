"""EOF is carried as EOF, one direction at a time, after all bytes."""

from __future__ import annotations

import queue
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.proxies import Pair
from harness.sockets import Target, connect, end_of, read_all, read_exactly

DATA = random.Random(4).randbytes(3_000_000)


def test_client_half_closes_and_gets_its_answer(echo_pair: Pair) -> None:
    """The target answers after the client's EOF only: what `read_all` there is for."""
    with connect(echo_pair.address) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"question"


@pytest.fixture(scope="module")
def server_ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pair, queue.Queue[bytes]]]:
    """A pair before a server that says its piece, ends its direction, and keeps listening."""
    heard: queue.Queue[bytes] = queue.Queue()

    def serve(sock: socket.socket) -> None:
        sock.sendall(DATA)
        sock.shutdown(socket.SHUT_WR)
        heard.put(read_all(sock))

    with Target(serve) as target, Pair(tmp_path_factory.mktemp("pair"), target.to) as pair:
        yield pair, heard


def test_server_half_closes_and_still_hears(server_ends: tuple[Pair, queue.Queue[bytes]]) -> None:
    pair, heard = server_ends
    with connect(pair.address) as client:
        assert read_all(client) == DATA
        client.sendall(DATA[::-1])
        client.shutdown(socket.SHUT_WR)
        assert heard.get(timeout=20) == DATA[::-1]


def test_client_ends_before_it_has_said_anything(server_ends: tuple[Pair, queue.Queue[bytes]]) -> None:
    pair, heard = server_ends
    with connect(pair.address) as client:
        client.shutdown(socket.SHUT_WR)
        assert end_of(client) == ("eof", DATA)
    assert heard.get(timeout=20) == b""


def test_both_close_at_once(echo_pair: Pair) -> None:
    before = len(echo_pair.listen.log("connection closed"))
    for _ in range(20):
        client = connect(echo_pair.address)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        client.close()
    closed = echo_pair.listen.ended(before + 20)
    assert {line["reason"] for line in closed[before:]} == {"finished"}


def test_a_line_for_a_line(echo_pair: Pair) -> None:
    """Small messages come through as they are sent, not when the connection ends."""
    with connect(echo_pair.address) as client:
        for n in range(500):
            client.sendall(b"%d\n" % n)
            assert read_exactly(client, len(b"%d\n" % n)) == b"%d\n" % n


def test_server_speaks_first(tmp_path: Path) -> None:
    """A banner arrives without a byte from the client."""

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"220 ready\r\n")
        read_all(sock)

    with Target(serve) as target, Pair(tmp_path, target.to) as pair:
        clients = [connect(pair.address) for _ in range(20)]
        for client in clients:
            assert read_exactly(client, 11) == b"220 ready\r\n"
            client.close()
