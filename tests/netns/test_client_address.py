"""The server learns its client's address through a PROXY header, and the wire shows none of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.process import wait_for
from harness.proxies import Keys, from_file
from harness.sockets import Target, read_all

from stcp_proxy.net.proxy_header import parse_header


@pytest.mark.parametrize("family", ["ip4", "ip6"])
def test_the_server_is_told_who_asks(tmp_path: Path, net: Net, family: str) -> None:
    here, there = (f"[{ip}]" if ":" in ip else ip for ip in (getattr(net.client, family), getattr(net.server, family)))
    heard: list[bytes] = []

    def note(sock: socket.socket) -> None:
        heard.append(read_all(sock))

    keys = Keys(tmp_path)
    with Target(note, net.server.listener("127.0.0.1")) as target, net.watch() as watch:
        settings = f'bind: "{there}:7443", to: "{target.to}", allow: app-host, proxy_protocol: v2'
        with from_file(tmp_path, "listen", keys, f"  in: {{mode: listen, {settings}}}\n", place=net.server.place()):
            settings = f'bind: "{here}:5000", to: "{there}:7443", peer: db-host'
            with (
                from_file(tmp_path, "connect", keys, f"  out: {{mode: connect, {settings}}}\n", place=net.client.place()),
                net.client.connect(getattr(net.client, family), 5000) as sock,
            ):
                ip, port = sock.getsockname()[:2]
                sock.sendall(b"a word for the server alone")
                sock.shutdown(socket.SHUT_WR)
                (data,) = wait_for(lambda: heard, words="the server hears its client")
    found = parse_header(data)
    assert found is not None
    size, header = found
    assert header.source is not None
    assert (str(header.source.ip), header.source.port) == (ip, port)
    assert data[size:] == b"a word for the server alone"
    assert b"for the server alone" not in watch.payload()
    assert b"QUIT" not in watch.payload()
