"""Which process is at the other end, and whether it may ask."""

from __future__ import annotations

import os
import socket

import pytest

from stcp_proxy.net.peer_credentials import PeerCredentials, peer_credentials


def test_a_unix_socket_tells() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        assert peer_credentials(one) == PeerCredentials(os.getpid(), os.geteuid())


def test_others_do_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert peer_credentials(client) is None
    with socket.socket(socket.AF_UNIX) as alone:
        assert peer_credentials(alone) is None


@pytest.mark.parametrize(("own", "theirs", "may"), [(1000, 1000, True), (1000, 0, True), (1000, 1001, False), (0, 1000, False)])
def test_who_may(monkeypatch: pytest.MonkeyPatch, own: int, theirs: int, may: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: own)
    assert PeerCredentials(1, theirs).same_user_or_root is may
