"""A host that has no local port left: its own shortage, said as such, with nobody set aside and no other endpoint tried."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.proxies import Keys, from_file
from harness.sockets import Target, read_exactly

PORTS = 20
RANGE = "net.ipv4.ip_local_port_range"


@pytest.fixture
def few_ports(net: Net) -> Iterator[None]:
    for host in (net.client, net.server):
        host.run("sysctl", "-q", "-w", f"{RANGE}=40000 {40000 + PORTS - 1}")
    yield
    for host in (net.client, net.server):
        host.run("sysctl", "-q", "-w", f"{RANGE}=32768 60999")


def ask(net: Net, port: int, number: int) -> socket.socket | None:
    """A connection through the client's proxy from a port outside of the small range; None where it is refused."""

    def dial() -> socket.socket:
        sock = socket.socket()
        try:
            sock.settimeout(10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 20000 + number))
            sock.connect(("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return sock

    try:
        sock = net.client.do(dial)
    except ConnectionResetError:  # refused before connect() had returned
        return None
    try:
        sock.sendall(b"x")
        if read_exactly(sock, 1) == b"x":
            return sock
    except OSError:
        pass
    sock.close()
    return None


@pytest.mark.usefixtures("few_ports")
def test_no_local_port_is_left(net: Net, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with Target(listener=net.server.listener("127.0.0.1", 5000)) as target:
        to = f"{net.server.ip4}:7443"
        far = f'  far: {{mode: listen, bind: "{to}", to: "{target.to}", allow: app-host}}\n'
        near = f'  near: {{mode: connect, bind: "127.0.0.1:6001", to: ["{to}", "{net.server.ip4}:7444"], peer: db-host}}\n'
        with (
            from_file(tmp_path, "listen", keys, far, place=net.server.place()),
            from_file(tmp_path, "connect", keys, near, place=net.client.place()) as connect,
            contextlib.ExitStack() as sockets,
        ):
            made = [sock for number in range(PORTS + 5) if (sock := ask(net, 6001, number))]
            for sock in made:
                sockets.enter_context(sock)
            assert 0 < len(made) <= PORTS
            lines = connect.refused(tunnel="near")
            assert {(line["reason"], line["cause"]) for line in lines} == {("over_limit", "limit")}
            assert all("no local port is left for a connection to" in line["why"] for line in lines)
            assert all("ip_local_port_range" in line["remedy"] for line in lines)
            assert [
                line for line in connect.log() if line["event"] in ("endpoint marked unhealthy", "connection failed over")
            ] == []
            for host in (net.client, net.server):
                host.run("sysctl", "-q", "-w", f"{RANGE}=40000 41999")
            again = ask(net, 6001, PORTS + 5)  # at once: no endpoint has to recover
            assert again is not None
            again.close()
