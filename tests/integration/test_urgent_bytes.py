"""Bytes that a sender marks as urgent stay in the stream, in both directions; what follows them passes too."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from harness.proxies import Pair
from harness.sockets import Target, connect, read_exactly


def _abort(sock: socket.socket) -> None:
    """What FTP's `abort()` sends, and a second answer behind it."""
    assert read_exactly(sock, 8) == b"\xff\xf4\xff\xf2ABOR"
    sock.send(b"226 done", socket.MSG_OOB)
    sock.sendall(b"225 and another\r\n")
    sock.recv(1)


@pytest.mark.parametrize("compiled", ["0", ""])
def test_urgent_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: str) -> None:
    monkeypatch.setenv("STCP_COMPILED", compiled)
    with Target(_abort) as target, Pair(tmp_path, target.to) as pair, connect(pair.address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        client.send(b"\xff\xf4\xff", socket.MSG_OOB)
        client.sendall(b"\xf2ABOR")
        assert read_exactly(client, 25) == b"226 done225 and another\r\n"
