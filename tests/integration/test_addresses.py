"""Unix sockets, IPv6 and names, on every side of a pair."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.proxies import Pair
from harness.sockets import Target, connect, end_of, read_all


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="stcp") as name:
        yield Path(name)


def works(pair: Pair) -> None:
    words = os.urandom(300_000)
    with connect(pair.address) as client:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == words


@pytest.mark.parametrize("sides", ["bind", "wire", "to", "bind wire to"])
def test_unix(folder: Path, sides: str) -> None:
    with ExitStack() as stack:
        listener = None
        if "to" in sides:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(folder / "app.sock"))
        target = stack.enter_context(Target(listener=listener))
        bind = f"unix:{folder}/front.sock" if "bind" in sides else "127.0.0.1:0"
        wire = f"unix:{folder}/wire.sock" if "wire" in sides else "127.0.0.1:0"
        with Pair(folder, target.to, bind=bind, wire=wire) as pair:
            works(pair)
            here, there = pair.connect.ended()[0], pair.listen.ended()[0]
            assert here["channel"] == there["channel"]
            if "bind" in sides:
                assert stat.S_IMODE((folder / "front.sock").stat().st_mode) == 0o600
                assert here["client"] == "unix"
            if "wire" in sides:
                assert here["target"] == wire
            if "to" in sides:
                assert there["target"] == target.to
        assert not (folder / "front.sock").exists()
        assert not (folder / "wire.sock").exists()


def test_unix_reset(folder: Path) -> None:
    """A unix client that is reset sees an error, not an end; one that is gone resets the other side."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1)

    with Target(serve) as target, Pair(folder, target.to, bind=f"unix:{folder}/front.sock") as pair:
        with connect(pair.address) as client:
            client.sendall(b"xy")  # the target reads one byte only: its close is a reset
            assert end_of(client)[0] in ("reset", "eof")  # Linux tells a unix socket of a reset only where bytes were unread
        assert pair.connect.ended()[0]["reason"] == "peer_reset"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_INET6)
    listener.bind(("::1", 0))
    with Target(listener=listener) as target, Pair(tmp_path, target.to, bind="[::1]:0", wire="[::1]:0") as pair:
        works(pair)
        assert pair.connect.ended()[0]["client"].startswith("[::1]:")
        assert pair.listen.ended()[0]["target"].startswith("[::1]:")


def test_names(tmp_path: Path) -> None:
    """Names are resolved at each dial, and every address of one is tried: localhost may be ::1 first."""
    with Target() as target:
        port = target.to.rpartition(":")[2]
        with Pair(tmp_path, f"localhost:{port}", bind="localhost:0", wire="localhost:0") as pair:
            works(pair)


def test_every_interface(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, target.to, bind=":0") as pair:
        assert len(pair.connect.addresses) == (2 if has_ipv6() else 1)
        for address in pair.connect.addresses:
            host = "::1" if address.startswith("[") else "127.0.0.1"
            with connect((host, pair.port)) as client:
                client.sendall(b"word")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"word"
