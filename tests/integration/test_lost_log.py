"""Whoever reads the log may go away: connections go on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from harness.peer import Peer
from harness.process import wait_for
from harness.proxies import COMMAND, Keys
from harness.sockets import Target, connect, free_port

from stcp_proxy.protocol.wire import FrameType


@pytest.mark.parametrize("style", ["json", "text"])
def test_the_reader_of_the_log_is_gone(tmp_path: Path, echo: Target, style: str) -> None:
    keys, port = Keys(tmp_path), free_port()
    arguments = ["listen", "--bind", f"127.0.0.1:{port}", "--to", echo.to, *keys.listen(), "--log-format", style]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        while b"ready" not in process.stderr.readline():
            assert process.poll() is None
        process.stderr.close()
        for _ in range(3):
            with connect(("127.0.0.1", port)) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
        for _ in range(3):
            with connect(("127.0.0.1", port)) as sock:
                peer = Peer(sock, keys)
                peer.open()
                peer.send(FrameType.DATA, b"still here")
                assert peer.receive() == (FrameType.DATA, b"still here")
        # Its connections have ended, and are accounted for: two descriptors each would be left otherwise.
        wait_for(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) < 20, words="descriptors are closed")
        process.terminate()
        process.wait(20)  # long before the drain's deadline: nothing is held to be open
    finally:
        process.kill()
        process.wait()
