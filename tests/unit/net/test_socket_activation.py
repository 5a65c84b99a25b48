"""Sockets from a service manager: which are taken, whose they are, and what is said when they do not fit."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stcp_proxy.errors import ConfigError
from stcp_proxy.net import socket_activation
from stcp_proxy.net.address import parse_address


def bind(text: str) -> socket_activation.Address:
    return parse_address(text, role="bind")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def handed(monkeypatch: pytest.MonkeyPatch, *socks: socket.socket, names: str = "", **other: str) -> dict[str, str]:
    """The environment for copies of these sockets at descriptors of their own, one behind the other."""
    first = 200
    for at, sock in enumerate(socks):
        os.dup2(sock.fileno(), first + at)
    monkeypatch.setattr(socket_activation, "_FIRST", first)
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(socks)), "LISTEN_FDNAMES": names, **other}


def test_taken_once_and_not_inherited(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = handed(monkeypatch, listener, names="redis", HOME="/")
    (sock,) = socket_activation.take(environ)["redis"]
    with sock:
        assert environ == {"HOME": "/"}
        assert sock.getsockname() == listener.getsockname()
        assert (sock.get_inheritable(), sock.getblocking()) == (False, False)
    assert socket_activation.take(environ) == {}


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_for_another_process(pid: str) -> None:
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "1"}
    assert socket_activation.take(environ) == {}
    assert environ == {"LISTEN_PID": pid, "LISTEN_FDS": "1"}  # it may be for a program that this one runs


@pytest.mark.parametrize("count", ["", "-1", "many", "99999999"])
def test_no_number(count: str) -> None:
    with pytest.raises(ConfigError, match="no number of sockets"):
        socket_activation.take({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_what_is_no_listening_stream_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair()
    with left, right, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for sock, words in ((datagrams, "no stream socket"), (left, "does not listen")):
            with pytest.raises(ConfigError, match=words) as caught:
                socket_activation.take(handed(monkeypatch, sock, names="redis"))
            assert caught.value.remedy
    reader, writer = os.pipe()
    os.dup2(reader, 200)
    with pytest.raises(ConfigError, match="no socket"):
        socket_activation.take({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
    for fd in (reader, writer, 200):
        os.close(fd)


def test_each_tunnel_gets_its_own(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.create_server(("0.0.0.0", 0)) as four, socket.create_server(("::", 0), family=socket.AF_INET6) as six:
        tunnels = [("a", bind(f"127.0.0.1:{port}")), ("b", bind(":0")), ("c", bind(":5"))]
        assert socket_activation.assign({"a": [listener], "b": [four, six]}, tunnels) == [[listener], [four, six], None]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("127.0.0.1:{}", True),
        ("localhost:{}", True),
        ("127.0.0.1:0", True),
        ("127.0.0.1:1", False),
        ("127.0.0.2:{}", False),
        (":{}", False),  # every interface was asked for, and one is given
        ("[::1]:{}", False),
        ("unix:/run/redis.sock", False),
    ],
)
def test_address(listener: socket.socket, text: str, fits: bool) -> None:
    tunnels = [("redis", bind(text.format(listener.getsockname()[1])))]
    if fits:
        assert socket_activation.assign({"redis": [listener]}, tunnels) == [[listener]]
        return
    with pytest.raises(ConfigError, match=r"'redis' binds .* and the socket that systemd handed over for it is at 127") as caught:
        socket_activation.assign({"redis": [listener]}, tunnels)
    assert "ListenStream=" in (caught.value.remedy or "")
    assert listener.fileno() == -1


@pytest.mark.parametrize("dual", [True, False])
def test_every_interface(dual: bool) -> None:
    """systemd's `ListenStream=7443` is one socket for both families."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=dual) as sock:
        tunnels = [("redis", bind(f":{sock.getsockname()[1]}"))]
        assert socket_activation.assign({"redis": [sock]}, tunnels) == [[sock]]


def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        assert socket_activation.assign({"a": [sock]}, [("a", bind(f"unix:{path}"))]) == [[sock]]
        with pytest.raises(ConfigError, match="is at unix:"):
            socket_activation.assign({"a": [sock]}, [("a", bind(f"unix:{path}2"))])


def test_a_name_that_no_tunnel_has(listener: socket.socket) -> None:
    with pytest.raises(ConfigError, match=r"'redis\.socket', and no tunnel has that name") as caught:
        socket_activation.assign({"redis.socket": [listener]}, [("redis", bind(":1")), ("web", bind(":2"))])
    assert "FileDescriptorName= and one of these in its .socket unit: redis, web" in str(caught.value)
