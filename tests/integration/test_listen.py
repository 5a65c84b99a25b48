"""Listening on real sockets: which appear, what is in the way, and what is left behind."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from stcp_proxy.errors import ConfigError
from stcp_proxy.net.address import TcpAddress, UnixAddress
from stcp_proxy.net.listen import close_listeners, listening_on, open_listeners


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_listens_without_blocking_and_reports_its_port(host: str) -> None:
    listeners = open_listeners(TcpAddress(host, 0), backlog=5)
    try:
        port = listeners[0].getsockname()[1]
        assert {sock.getsockname()[1] for sock in listeners} == {port}
        assert not any(sock.getblocking() for sock in listeners)
        assert all(name.endswith(f":{port}") for name in listening_on(listeners))
        socket.create_connection(("127.0.0.1", port)).close()
    finally:
        close_listeners(listeners)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@needs_ipv6
def test_no_host_is_both_families_apart() -> None:
    listeners = open_listeners(TcpAddress("", 0), backlog=5)
    try:
        port = listeners[0].getsockname()[1]
        assert listening_on(listeners) == [f"0.0.0.0:{port}", f"[::]:{port}"]
        for index, host in enumerate(["127.0.0.1", "::1"]):
            with socket.create_connection((host, port)):
                accepted, _ = listeners[index].accept()
                accepted.close()
    finally:
        close_listeners(listeners)


@needs_ipv6
def test_ipv6_wildcard_leaves_ipv4_alone() -> None:
    listeners = open_listeners(TcpAddress("::", 0), backlog=5)
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listeners[0].getsockname()[1]))
    finally:
        close_listeners(listeners)


def test_port_is_free_again_at_once() -> None:
    listeners = open_listeners(TcpAddress("127.0.0.1", 0), backlog=5)
    port = listeners[0].getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = listeners[0].accept()
    accepted.close()  # this side closes first: TIME_WAIT stays here
    client.close()
    close_listeners(listeners)
    close_listeners(open_listeners(TcpAddress("127.0.0.1", port), backlog=5))


def test_port_taken() -> None:
    listeners = open_listeners(TcpAddress("127.0.0.1", 0), backlog=5)
    try:
        with pytest.raises(ConfigError, match="another program is listening there; stop it"):
            open_listeners(TcpAddress("127.0.0.1", listeners[0].getsockname()[1]), backlog=5)
    finally:
        close_listeners(listeners)


def test_port_of_an_outgoing_connection() -> None:
    """The system gave the port to a connection: nobody listens, and stopping a program is no remedy."""
    with socket.create_server(("127.0.0.1", 0)) as far, socket.create_connection(far.getsockname()) as near:
        port = near.getsockname()[1]
        with pytest.raises(ConfigError, match="an outgoing connection of this machine uses port") as caught:
            open_listeners(TcpAddress("127.0.0.1", port), backlog=5)
    assert f"ip_local_reserved_ports={port}" in str(caught.value)


def test_port_that_is_bound_and_nothing_else() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="another program has bound that port"):
            open_listeners(TcpAddress("127.0.0.1", other.getsockname()[1]), backlog=5)


@needs_ipv6
def test_half_a_success_leaves_nothing_open() -> None:
    taken = open_listeners(TcpAddress("::1", 0), backlog=5)
    port = taken[0].getsockname()[1]
    try:
        with pytest.raises(ConfigError, match="another program"):
            open_listeners(TcpAddress("", port), backlog=5)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    finally:
        close_listeners(taken)


@pytest.mark.parametrize(
    ("host", "says"),
    [("192.0.2.1", "no interface of this machine"), ("nowhere.invalid", "cannot resolve nowhere.invalid")],
)
def test_address_of_another_machine(host: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_listeners(TcpAddress(host, 7443), backlog=5)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_comes_later(host: str) -> None:
    """A virtual address, or one that is tentative still."""
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with pytest.raises(ConfigError, match="or not yet"):
        open_listeners(TcpAddress(host, 0), backlog=5)
    listeners = open_listeners(TcpAddress(host, 0), backlog=5, freebind=True)
    assert listeners[0].getsockname()[0] == host
    close_listeners(listeners)


def test_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ConfigError, match=r"may not bind a privileged port.*CAP_NET_BIND_SERVICE"):
        open_listeners(TcpAddress("127.0.0.1", 443), backlog=5)


# -- unix ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_unix_socket_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "app.sock"
    listeners = open_listeners(UnixAddress(str(path)), backlog=5, mode=mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    close_listeners(listeners)


def test_unix_socket_is_private_and_goes_with_its_listener(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    before = os.umask(0)
    try:
        listeners = open_listeners(UnixAddress(str(path)), backlog=5)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert listening_on(listeners) == [f"unix:{path}"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close_listeners(listeners)
    assert not path.exists()


def test_stale_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
    listeners = open_listeners(UnixAddress(str(path)), backlog=5)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close_listeners(listeners)


@pytest.mark.parametrize("waiting", [0, 3])
def test_live_socket_is_left_alone(tmp_path: Path, waiting: int) -> None:
    """Also where its backlog is full, so that the probe is not answered."""
    path = tmp_path / "app.sock"
    live = open_listeners(UnixAddress(str(path)), backlog=0)
    clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(waiting)]
    try:
        for client in clients:
            client.connect_ex(str(path))
        with pytest.raises(ConfigError, match="another program has bound"):
            open_listeners(UnixAddress(str(path)), backlog=5)
        assert path.exists()
    finally:
        for client in clients:
            client.close()
        close_listeners(live)


def test_a_socket_that_does_not_listen_yet_is_left_alone(tmp_path: Path) -> None:
    """As between bind() and listen() of another program."""
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as starting:
        starting.bind(str(path))
        with pytest.raises(ConfigError, match="another program has bound"):
            open_listeners(UnixAddress(str(path)), backlog=5)
        starting.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_the_question_who_has_a_path_makes_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    (live,) = open_listeners(UnixAddress(str(path)), backlog=5)
    try:
        with pytest.raises(ConfigError):
            open_listeners(UnixAddress(str(path)), backlog=5)
        with pytest.raises(BlockingIOError):
            live.accept()
    finally:
        close_listeners([live])


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "app.sock"
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(ConfigError, match="not a socket"):
        open_listeners(UnixAddress(str(path)), backlog=5)
    assert os.path.lexists(path)


def test_folder_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder does not exist"):
        open_listeners(UnixAddress(str(tmp_path / "no" / "app.sock")), backlog=5)


def test_somebody_elses_file_is_not_unlinked(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listeners = open_listeners(UnixAddress(str(path)), backlog=5)
    path.unlink()
    path.touch()
    close_listeners(listeners)
    assert path.exists()
