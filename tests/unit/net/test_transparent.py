"""Dialling from a client's own address, as far as one host shows it: loopback has many."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator

import pytest
import trio
from harness.sockets import free_port

from stcp_proxy.errors import ConfigError, TargetUnreachable
from stcp_proxy.net import transparent
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure, SocketAddress, connect
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.targets import Targets


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def _permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback addresses need no privilege."""
    monkeypatch.setattr(transparent, "make_transparent", lambda _sock: None)


def client(ip: str, port: int = 0) -> Endpoint:
    return Endpoint(ipaddress.ip_address(ip), port)


async def dial(server: socket.socket, source: Endpoint) -> socket.socket | Failure:
    return await connect(SocketAddress(socket.AF_INET, server.getsockname()), trio.current_time() + 5, source=source)


@pytest.mark.usefixtures("_permitted")
async def test_the_address_and_the_port(server: socket.socket) -> None:
    port = free_port()
    first = await dial(server, client("127.0.0.77", port))
    assert not isinstance(first, Failure)
    with first:
        assert first.getsockname() == ("127.0.0.77", port)
        with socket.socket() as other:  # a server that starts is not kept from its port
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("", port))
            other.listen()
        second = await dial(server, client("127.0.0.77", port))  # towards the same place: another port
        assert not isinstance(second, Failure)
        with second:
            assert second.getsockname()[0] == "127.0.0.77"
            assert second.getsockname()[1] != port


@pytest.mark.usefixtures("_permitted")
async def test_a_servers_port_is_not_taken(server: socket.socket) -> None:
    made = await dial(server, client("127.0.0.1", server.getsockname()[1]))
    assert not isinstance(made, Failure)
    with made:
        assert made.getsockname() != server.getsockname()


@pytest.mark.usefixtures("_permitted")
@pytest.mark.parametrize(("ip", "says"), [("2001:db8::1", "the other family"), ("203.0.113.9", "cannot assign")])
async def test_no_fault_of_the_place(server: socket.socket, ip: str, says: str) -> None:
    """One client's address that cannot be had sets nothing aside for the others."""
    made = await dial(server, client(ip, 4711))
    assert isinstance(made, Failure)
    assert made.local
    assert says in made.words
    targets = Targets([TcpAddress("127.0.0.1", server.getsockname()[1])], tunnel="t")
    with Attempt(targets, 5, source=client(ip)) as attempt, pytest.raises(TargetUnreachable, match=says):
        await attempt.dial()
    (endpoint,) = targets.endpoints
    assert (endpoint.failures, endpoint.live) == (0, 0)


def test_a_privilege_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_sock: socket.socket) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(transparent, "make_transparent", refuse)
    with pytest.raises(ConfigError, match="Operation not permitted; grant CAP_NET_ADMIN or CAP_NET_RAW"):
        transparent.check_transparent()
