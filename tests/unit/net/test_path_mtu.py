"""What the kernel says of bytes that do not arrive."""

from __future__ import annotations

import socket
import struct

import pytest

from stcp_proxy.net.path_mtu import is_unacknowledged


class Told:
    """A socket about which the kernel says this."""

    family = socket.AF_INET

    def __init__(self, retransmits: int, unacknowledged: int) -> None:
        self._info = bytes([1, 4, retransmits, 0, 0, 0, 0, 0]) + struct.pack("=IIIII", 200_000, 40_000, 1448, 536, unacknowledged)

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        return self._info[:size]


@pytest.mark.parametrize(("retransmits", "unacknowledged", "lost"), [(0, 0, False), (0, 1, False), (3, 1, True), (3, 0, False)])
def test_sent_again_and_not_acknowledged(retransmits: int, unacknowledged: int, lost: bool) -> None:
    assert is_unacknowledged(Told(retransmits, unacknowledged)) is lost  # type: ignore[arg-type]


def test_real_sockets_of_this_host_lose_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"x" * 2000)
        assert not is_unacknowledged(client)
    one, other = socket.socketpair()
    with one, other:
        assert not is_unacknowledged(one)
