"""What this machine lacks is no fault of the other end: the errno of each call, and what becomes of the connection."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from stcp_proxy.errors import Cause, OverLimit, TargetUnreachable
from stcp_proxy.net import dial as dial_module
from stcp_proxy.net import shortage as shortage_module
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure, SocketAddress, connect, summary
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.shortage import has_source_address, lacks_descriptors, shortage
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.upstream.attempt import Attempt
from stcp_proxy.upstream.targets import Targets

LACKING = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
PORTS = [errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EAGAIN]


@pytest.fixture
def server() -> Iterator[SocketAddress]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield SocketAddress(socket.AF_INET, sock.getsockname())


def fail_with(monkeypatch: pytest.MonkeyPatch, status: int) -> list[Any]:
    """Let every connect() fail; a list of where they went."""
    asked = []

    async def refuse(sock: socket.socket, sockaddr: Any, deadline: float, own: object) -> int:
        asked.append(sockaddr)
        await trio.lowlevel.checkpoint()
        return status

    monkeypatch.setattr(dial_module, "_connect", refuse)
    return asked


@pytest.mark.parametrize("status", LACKING)
def test_an_errno_of_this_machine(status: int) -> None:
    found = shortage(status)
    assert found is not None
    assert found.cause is Cause.LIMIT
    assert found.remedy


@pytest.mark.parametrize("status", [None, 0, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL])
def test_an_errno_that_says_something_else(status: int | None) -> None:
    assert shortage(status) is None


@pytest.mark.parametrize("status", LACKING + PORTS)
async def test_no_other_endpoint_is_tried_and_none_is_blamed(
    server: SocketAddress, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    asked = fail_with(monkeypatch, status)
    port = server.sockaddr[1]
    targets = Targets([TcpAddress("127.0.0.1", port), TcpAddress("127.0.0.2", port)], tunnel="t")
    with Attempt(targets, 5) as attempt, pytest.raises(OverLimit) as caught:
        await attempt.dial()
    assert ("ip_local_port_range" in str(caught.value)) == (status in PORTS)
    assert asked == [("127.0.0.1", port)]
    assert [(each.failures, each.live) for each in targets.endpoints] == [(0, 0), (0, 0)]


async def test_a_family_without_an_address_is_a_failure_of_that_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """EADDRNOTAVAIL, too, where IPv6 is switched off: the next endpoint may well be of the other family."""
    monkeypatch.setattr(dial_module, "has_source_address", lambda family, _sockaddr: family == socket.AF_INET)
    fail_with(monkeypatch, errno.EADDRNOTAVAIL)
    made = await connect(SocketAddress(socket.AF_INET6, ("::1", 7, 0, 0)), 5)
    assert isinstance(made, Failure)
    assert "no address of that family" in made.words
    assert isinstance(summary(["t"], [made]), TargetUnreachable)


def test_whether_there_is_a_source_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_source_address(socket.AF_INET, ("127.0.0.1", 7))
    real = socket.socket

    class Refuses(real):
        def connect_ex(self, _address: Any) -> int:
            return errno.EADDRNOTAVAIL

    monkeypatch.setattr(shortage_module.socket, "socket", Refuses)
    assert not has_source_address(socket.AF_INET, ("127.0.0.1", 7))


async def test_a_clients_address_without_a_port_left(server: SocketAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """First with the client's own port, then with any port of its address."""
    monkeypatch.setattr(dial_module, "bind_to_client", lambda _sock, _client: None)
    asked = fail_with(monkeypatch, errno.EADDRNOTAVAIL)
    with pytest.raises(OverLimit, match=r"no local port of 127\.0\.0\.1 is left"):
        await connect(server, 5, source=Endpoint(ipaddress.ip_address("127.0.0.1"), 4711))
    assert len(asked) == 2


async def test_a_client_whose_address_cannot_be_bound_for_want_of_memory(
    server: SocketAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_sock: socket.socket, _client: Endpoint) -> None:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(dial_module, "bind_to_client", refuse)
    with pytest.raises(OverLimit, match="no memory for another socket"):
        await connect(server, 5, source=Endpoint(ipaddress.ip_address("127.0.0.1"), 0))


def test_a_lookup_that_failed_for_want_of_descriptors() -> None:
    lack = OverLimit("none left", remedy="raise it")
    assert summary(["db.test:1"], [Failure("db.test", 0, "cannot resolve", lack=lack)]) is lack


def test_descriptors_are_not_lacking_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacks_descriptors() is None

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    assert lacks_descriptors() is not None


class NoMemory:
    """A socket that the system has no memory for."""

    def send(self, _data: bytes) -> int:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def recv(self, _size: int) -> bytes:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


async def test_a_leg_without_memory_is_not_broken_by_its_peer() -> None:
    stream = LegStream(NoMemory())  # type: ignore[arg-type]
    with pytest.raises(OverLimit):
        await stream.send_all(b"x")
    with pytest.raises(OverLimit):
        await stream.receive_some()
    with pytest.raises(OverLimit):
        stream.receive_nowait(10)
