"""The limits of a real process: who comes too many waits, one line a second says so, and waiting costs no processor time."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from harness.peer import Peer
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of, read_exactly
from harness.software import require

IDLE = 0.2
"""Share of a processor that a waiting process may use; a busy loop takes all of one."""


def quiet(proxy: Proxy, seconds: float = 1.0) -> None:
    before = proxy.cpu_seconds()
    time.sleep(seconds)
    assert proxy.cpu_seconds() - before < IDLE * seconds


def lines_a_second(proxy: Proxy, event: str, since: float) -> float:
    return len(proxy.log(event)) / (time.monotonic() - since + 1)


def test_connections_over_the_limit_wait(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, target.to, connect=["--max-connections", "3"]) as pair:
        started = time.monotonic()
        clients = [connect(pair.address) for _ in range(6)]
        for client in clients:
            client.sendall(b"word")
        for client in clients[:3]:
            assert read_exactly(client, 4) == b"word"
        quiet(pair.connect, 1.5)
        assert target.dialled(3)
        assert lines_a_second(pair.connect, "limit reached: new connections wait", started) <= 1
        line = pair.connect.wait_log("limit reached: new connections wait", limit="max_connections")[0]
        assert "remedy" in line
        for client in clients[:3]:
            client.close()
        for client in clients[3:]:
            assert read_exactly(client, 4) == b"word"
            client.close()
        pair.connect.ended(6)


def test_silent_strangers_do_not_shut_the_door(tmp_path: Path) -> None:
    """More of them than handshakes are allowed: a peer gets in all the same, long before their deadline."""
    with Target() as target:
        keys = Keys(tmp_path)
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen()]
        with Proxy([*arguments, "--max-handshakes", "4", "--handshake-timeout", "60"], log=tmp_path / "log") as proxy:
            started = time.monotonic()
            strangers = [connect(proxy.address) for _ in range(8)]
            with connect(proxy.address) as sock:
                Peer(sock, keys).open()
            took = time.monotonic() - started
            assert took < 30
            given_up = proxy.refused(reason="over_limit", count=4)
            assert "remedy" in given_up[0]
            assert "peer" not in given_up[0]
            assert lines_a_second(proxy, "limit reached: new connections wait", started) <= 1
            for stranger in strangers[:4]:
                with stranger:
                    assert end_of(stranger)[1] == b""
            quiet(proxy)
            for stranger in strangers[4:]:
                stranger.close()


def test_out_of_descriptors(tmp_path: Path) -> None:
    """A connection needs two: those that would not get both wait in the backlog, and all are served in the end."""
    require("prlimit")
    prefix = ("prlimit", "--nofile=64:64")
    with Target() as target, Pair(tmp_path, target.to) as pair:
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *pair.keys.connect()]
        with Proxy(arguments, log=tmp_path / "small.log", prefix=prefix) as small:
            small.ready()
            (told,) = small.log("fewer descriptors than connections: new connections will wait")
            assert 10 < told["connections"] < 32
            started = time.monotonic()
            clients: list[socket.socket] = []
            for _ in range(60):
                client = connect(small.address)
                clients.append(client)
                client.sendall(b"word")
            (line,) = small.wait_log("limit reached: new connections wait", limit="descriptors")
            assert line["value"] == told["connections"]
            assert "ulimit" in line["remedy"]
            quiet(small, 2)
            assert lines_a_second(small, "limit reached: new connections wait", started) <= 1
            for client in clients:
                assert read_exactly(client, 4) == b"word"
                client.close()
            assert small.log("connection refused") == []
            assert small.log("cannot accept: new connections wait") == []


@pytest.mark.parametrize("side", ["listen", "connect"])
def test_idle_timeout(tmp_path: Path, side: str) -> None:
    """Set on one side, told to both: a connection at rest is reset, a busy one is not."""
    limit = ["--idle-timeout", "2"]
    flags = {"listen": limit} if side == "listen" else {"connect": limit}
    with Target() as target, Pair(tmp_path, target.to, **flags) as pair:
        with connect(pair.address) as busy, connect(pair.address) as idle:
            idle.sendall(b"word")
            assert read_exactly(idle, 4) == b"word"
            for _ in range(25):
                busy.sendall(b"word")
                assert read_exactly(busy, 4) == b"word"
                time.sleep(0.1)
            assert end_of(idle) == ("reset", b"")
            busy.sendall(b"word")
            assert read_exactly(busy, 4) == b"word"
        limited, other = (pair.listen, pair.connect) if side == "listen" else (pair.connect, pair.listen)
        assert len(limited.ended(1, reason="idle_timeout")) == 1
        assert "idle" in other.ended(1, reason="peer_reset")[0]["why"]
