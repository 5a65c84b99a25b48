"""The listening side on the server's host: it dials the server that the client dialled, and from the client's own address."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import USER, Net
from harness.process import wait_for
from harness.proxies import Keys, from_file
from harness.sockets import Target, read_exactly

from netns.sidecar import PORT, Sidecar

FAMILY = pytest.mark.parametrize("family", ["ip4", "ip6"])


def bracketed(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


@FAMILY
def test_the_server_that_was_dialled(tmp_path: Path, net: Net, family: str) -> None:
    """Redirected on the client's host, dialled on the server's; a port that the file does not list is refused."""
    ip = getattr(net.server, family)
    rule = f"{bracketed(ip)}:{PORT}"
    routes = ('match: ":5000-5001"',)
    with (
        Target(lambda sock: sock.sendall(b"found"), net.server.listener(ip, PORT)),
        Target(lambda sock: sock.sendall(b"wrong"), net.server.listener(ip, PORT + 1)) as other,
        Sidecar(net, tmp_path, "redirect", routes=routes, to="original", allow_targets=rule) as sidecar,
    ):
        with net.watch() as watch:
            with net.client.connect(ip, PORT) as sock:
                assert read_exactly(sock, 5) == b"found"
            assert sidecar.listen.ended()[0]["target"] == rule
            with net.client.connect(ip, PORT + 1) as sock, contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
            assert sidecar.listen.refused(reason="denied")[0]["original"] == f"{bracketed(ip)}:{PORT + 1}"
            assert sidecar.connect.refused(reason="rejected")
        assert other.dials == 0
        assert b"found" not in watch.raw


@contextlib.contextmanager
def replies_stay(net: Net, *rule: str) -> Iterator[None]:
    """What the server's host sends by this rule is delivered to itself, to whomever it goes: as docs/TARGETS.md has it."""
    family = "-6" if ":" in rule[1] else "-4"
    everything = "::/0" if family == "-6" else "0.0.0.0/0"
    net.server.run("ip", family, "rule", "add", *rule, "iif", "lo", "lookup", "123")
    net.server.run("ip", family, "route", "add", "local", everything, "dev", "lo", "table", "123")
    try:
        yield
    finally:
        net.server.run("ip", family, "rule", "delete", *rule, "iif", "lo", "lookup", "123")
        net.server.run("ip", family, "route", "flush", "table", "123")


@FAMILY
@pytest.mark.parametrize("where", ["loopback", "its own address"])
def test_the_server_sees_its_clients_address(tmp_path: Path, net: Net, family: str, where: str) -> None:
    here, there = getattr(net.client, family), getattr(net.server, family)
    server = there if where != "loopback" else "::1" if family == "ip6" else "127.0.0.1"
    rule = ("from", server) if where == "loopback" else ("from", server, "ipproto", "tcp", "sport", str(PORT))
    seen: list[tuple[str, int]] = []

    def note(sock: socket.socket) -> None:
        seen.append(sock.getpeername()[:2])
        sock.sendall(sock.recv(100))

    keys = Keys(tmp_path)
    near = f'bind: "{bracketed(there)}:7443", to: "{bracketed(server)}:{PORT}", allow: app-host, source: transparent'
    far = f'bind: "{bracketed(here)}:5000", to: "{bracketed(there)}:7443", peer: db-host'
    with (
        replies_stay(net, *rule),
        Target(note, net.server.listener(server, PORT)),
        net.watch() as watch,
        from_file(tmp_path, "listen", keys, f"  in: {{mode: listen, {near}}}\n", place=net.server.place()),
        from_file(tmp_path, "connect", keys, f"  out: {{mode: connect, {far}}}\n", place=net.client.place()),
    ):
        for _ in range(3):
            with net.client.connect(here, 5000) as sock:
                name = sock.getsockname()[:2]
                sock.sendall(b"a word for the server alone")
                assert read_exactly(sock, 27) == b"a word for the server alone"
            assert wait_for(lambda: seen, words="the server sees its client")[-1] == name
    assert b"for the server alone" not in watch.raw


@FAMILY
def test_nobody_notices(tmp_path: Path, net: Net, family: str) -> None:
    """Neither end: the client dials the server's own address, and the server sees the client's."""
    ip = getattr(net.server, family)
    seen: list[tuple[str, int]] = []

    def note(sock: socket.socket) -> None:
        seen.append(sock.getpeername()[:2])
        sock.sendall(sock.recv(100))

    rule = f"{bracketed(ip)}:{PORT}"
    with (
        replies_stay(net, "from", ip, "ipproto", "tcp", "sport", str(PORT)),
        Target(note, net.server.listener(ip, PORT)),
        Sidecar(net, tmp_path, "redirect", to="original", allow_targets=rule, listen=", source: transparent") as sidecar,
    ):
        with net.client.connect(ip, PORT) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
            assert (seen, sock.getpeername()[:2]) == ([sock.getsockname()[:2]], (ip, PORT))
        (line,) = sidecar.listen.ended()
        assert (line["original"], line["target"]) == (rule, rule)


def test_without_the_privilege_it_does_not_start(net: Net) -> None:
    with tempfile.TemporaryDirectory(prefix="stcp-") as name:  # where another user can get at it
        folder = Path(name)
        Keys(folder)
        path = folder / "listen.yaml"
        path.write_text('tunnels: {in: {mode: listen, bind: ":7443", to: "127.0.0.1:1", psk: shared.psk, source: transparent}}\n')
        for each in (folder, path, folder / "shared.psk"):
            os.chown(each, USER, USER)
        done = net.server.product("run", str(path), user=USER, check=False)
    assert done.returncode == 2
    assert "CAP_NET_ADMIN or CAP_NET_RAW" in done.stderr.splitlines()[-1]
