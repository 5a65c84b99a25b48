"""A proxy that is killed looks like a reset to applications and servers, never like the clean end of a whole stream."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of, read_exactly


def children(pid: int) -> list[int]:
    """Process ids of the workers of a proxy."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Halfway:
    """A target that answers 1,000 bytes of more, or takes in what comes and notes how that ended."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.first = threading.Event()
        self.ends: list[tuple[str, bytes]] = []
        self.target = Target(self._serve)

    def _serve(self, sock: socket.socket) -> None:
        if read_exactly(sock, 1) == b"?":
            sock.sendall(bytes(1000))
            self.over.wait(30)
        else:
            self.first.set()
            self.ends.append(end_of(sock))


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_an_answer_is_cut_off_by_a_reset(tmp_path: Path, workers: list[str]) -> None:
    half = Halfway()
    with half.target, Pair(tmp_path, half.target.to, connect=workers) as pair, connect(pair.address) as client:
        client.sendall(b"?")
        assert len(read_exactly(client, 1000)) == 1000
        for pid in children(pair.connect.pid) if workers else [pair.connect.pid]:
            os.kill(pid, signal.SIGKILL)
        assert end_of(client) == ("reset", b"")
        half.over.set()


def test_an_upload_is_cut_off_by_a_reset(tmp_path: Path) -> None:
    half = Halfway()
    with half.target, Pair(tmp_path, half.target.to) as pair, connect(pair.address) as client:
        client.sendall(b"!" + bytes(1000))
        assert half.first.wait(20)
        pair.listen.signal(signal.SIGKILL)
        wait_for(lambda: half.ends, words="the server sees an end")
        assert half.ends[0][0] == "reset"
        assert end_of(client)[0] == "reset"


def test_an_application_that_still_waits_for_its_peer_is_reset(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"127.0.0.1:{silent.getsockname()[1]}"
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", to, *keys.connect()]
        with Proxy(arguments, log=tmp_path / "connect.log") as proxy:
            proxy.ready()
            with connect(proxy.address) as client, silent.accept()[0]:
                proxy.signal(signal.SIGKILL)
                assert end_of(client) == ("reset", b"")
