"""A reader of the log that stands still stops nothing: connections, signals and the admin address go on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from harness.peer import Peer
from harness.proxies import COMMAND, Keys
from harness.sockets import Target, connect, free_port

from stcp_proxy.protocol.wire import FrameType

FLOOD = 2000
"""Connections: each has a log line of some 300 bytes, and the pipe takes 64 KiB."""


def test_the_reader_of_the_log_stands_still(tmp_path: Path, echo: Target) -> None:
    keys, port = Keys(tmp_path), free_port()
    arguments = ["listen", "--bind", f"127.0.0.1:{port}", "--to", echo.to, *keys.listen(), "--log-level", "debug"]
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        while b"ready" not in process.stderr.readline():
            assert process.poll() is None
        for _ in range(FLOOD):
            with connect(("127.0.0.1", port)) as sock, contextlib.suppress(ConnectionError):
                peer = Peer(sock, keys)
                peer.open()
                peer.send(FrameType.DATA, b"still here")
                assert peer.receive() == (FrameType.DATA, b"still here")
        process.terminate()
        assert process.wait(20) == 0
        os.set_blocking(process.stderr.fileno(), False)
        assert len(process.stderr.read()) < FLOOD * 100, "the pipe was full, and lines were dropped"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
