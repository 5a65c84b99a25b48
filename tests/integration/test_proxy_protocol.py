"""The client's address, told in PROXY headers: by HAProxy to the connect side, by the listen side to HAProxy and nginx."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Keys, Proxy, from_file
from harness.sockets import Target, connect, end_of, free_port, read_all, read_exactly
from harness.software import Server, require

from stcp_proxy.net.proxy_header import TLV_PEER, TLV_UNIQUE_ID, parse_header

CLIENT = "127.0.0.77"
"""An address of this host that no proxy would ever dial from by itself."""


def haproxy(folder: Path, name: str, port: int, sections: str) -> Server:
    require("haproxy")
    config = folder / f"{name}.cfg"
    timeouts = "  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n"
    config.write_text(f"global\n  maxconn 100\ndefaults\n  mode tcp\n{timeouts}{sections}\n")
    return Server(["haproxy", "-db", "-f", str(config)], port=port, output=folder / f"{name}.log")


@contextlib.contextmanager
def tunnel(folder: Path, to: str, *, listen: str = "", out: str = "", keys: Keys | None = None) -> Iterator[tuple[Proxy, Proxy]]:
    """The listen and the connect side, each with further settings."""
    keys = keys or Keys(folder)
    settings = f'  in:\n    mode: listen\n    bind: 127.0.0.1:0\n    to: "{to}"\n    allow: app-host\n{listen}'
    with from_file(folder, "listen", keys, settings) as near:
        settings = f"  out:\n    mode: connect\n    bind: 127.0.0.1:0\n    to: 127.0.0.1:{near.port}\n    peer: db-host\n{out}"
        with from_file(folder, "connect", keys, settings) as far:
            yield near, far


def dial(port: int, source: str = CLIENT) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))


BELIEVE = "    allow_clients: 127.0.0.0/8\n"


def ask(sock: socket.socket) -> str:
    """What an HTTP server says about whoever asks."""
    sock.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
    return read_all(sock).partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_haproxy_at_both_ends(tmp_path: Path, version: str) -> None:
    """client, HAProxy, connect, listen, HAProxy: the last one knows the first one's address, and where it wanted to go."""
    front, back = free_port(), free_port()
    send = {"v1": "send-proxy", "v2": "send-proxy-v2"}[version]
    said = 'http-request return content-type text/plain lf-string "%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_unique_id]"'
    web = f"frontend web\n  mode http\n  bind 127.0.0.1:{back} accept-proxy\n  {said}"
    listen, out = f"    proxy_protocol: {version}\n{BELIEVE}", "    accept_proxy_protocol: {from: 127.0.0.1}\n"
    with (
        haproxy(tmp_path, "back", back, web),
        tunnel(tmp_path, f"127.0.0.1:{back}", listen=listen, out=out) as (near, far),
        haproxy(tmp_path, "front", front, f"listen front\n  bind 127.0.0.1:{front}\n  server s 127.0.0.1:{far.port} {send}"),
    ):
        with dial(front) as sock:
            name = "{}:{}".format(*sock.getsockname())
            answer = ask(sock).split()
        assert answer[:2] == [name, f"127.0.0.1:{front}"]
        channel = near.ended(origin=name)[0]["channel"]
        assert answer[2:] == ([channel] if version == "v2" else [])
        assert far.ended(origin=name)[0]["channel"] == channel


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_receives(tmp_path: Path, version: str) -> None:
    require("nginx")
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""
        daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log stderr warn;
        events {{ worker_connections 64; }}
        http {{
            access_log off; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p; fastcgi_temp_path {tmp_path}/f;
            uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
            server {{
                listen 127.0.0.1:{port} proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
                location / {{ return 200 "$remote_addr $proxy_protocol_port"; }}
            }}
        }}
        """
    )
    command = ["nginx", "-e", "stderr", "-p", str(tmp_path), "-c", str(config)]
    with (
        Server(command, port=port, output=tmp_path / "nginx.log"),
        tunnel(tmp_path, f"127.0.0.1:{port}", listen=f"    proxy_protocol: {version}\n{BELIEVE}") as (_, far),
        dial(far.port) as sock,
    ):
        assert ask(sock) == "{} {}".format(*sock.getsockname())


# -- towards the target ----------------------------------------------------------------------------------------------------


class Receiver(Target):
    """Notes everything up to EOF, and echoes it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__(self._note)

    def _note(self, sock: socket.socket) -> None:
        data = read_all(sock)
        self.heard.append(data)
        sock.sendall(data)

    def wait(self) -> bytes:
        return wait_for(lambda: self.heard, words="the target hears something")[0]


def test_the_header_is_ahead_of_every_byte(tmp_path: Path) -> None:
    """Of bytes that came with OPEN, too; and the target hears who asks although nothing is ever said."""
    with Receiver() as target, tunnel(tmp_path, target.to, listen=f"    proxy_protocol: v2\n{BELIEVE}") as (near, far):
        with dial(far.port) as sock:
            name = "{}:{}".format(*sock.getsockname())
            sock.sendall(b"early")
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        data = target.wait()
        found = parse_header(data)
        assert found is not None
        size, header = found
        assert (str(header.source), str(header.destination)) == (name, target.to)
        assert data[size:] == b"early"
        line = near.ended()[0]
        assert dict(header.tlvs) == {TLV_UNIQUE_ID: line["channel"].encode(), TLV_PEER: b"app-host"}
        assert line["bytes_to_plain"] == 5


def test_a_server_that_speaks_first(tmp_path: Path) -> None:
    """It waits for the header alone."""

    def serve(sock: socket.socket) -> None:
        while read_exactly(sock, 1) != b"\n":
            pass
        sock.sendall(b"220 ready")

    with (
        Target(serve) as target,
        tunnel(tmp_path, target.to, listen="    proxy_protocol: v1\n") as (_, far),
        dial(far.port) as sock,
    ):
        assert end_of(sock) == ("eof", b"220 ready")


def test_loopback_is_the_peers_own_and_not_ours(tmp_path: Path) -> None:
    """A client that is local to its proxy does not become local to the target: it is told the peer's address, as it came."""
    with Receiver() as target, tunnel(tmp_path, target.to, listen="    proxy_protocol: v1\n") as (near, far):
        with dial(far.port) as sock:
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        wire = near.ended()[0]["client"]
        assert re.match(rb"PROXY TCP4 (\S+) \S+ (\d+) ", target.wait()).groups() == tuple(  # type: ignore[union-attr]
            part.encode() for part in wire.split(":")
        )


def test_a_client_that_may_not_be_claimed(tmp_path: Path) -> None:
    """The front proxy's word reaches the listen side as the peer's; its rule stands above it."""
    listen, out = "    proxy_protocol: v2\n    allow_clients: 203.0.113.0/24\n", "    accept_proxy_protocol: true\n"
    with Receiver() as target, tunnel(tmp_path, target.to, listen=listen, out=out) as (near, far):
        for source in ("198.51.100.7", "224.0.0.1"):
            with connect(far.address) as sock:
                sock.sendall(f"PROXY TCP4 {source} 192.0.2.1 1 2\r\n".encode())
                assert end_of(sock)[0] == "reset"
        assert target.dials == 0
        for line in near.refused(count=2, reason="denied"):
            assert "which it may not claim" in line["why"]
            assert "allow_clients" in line["remedy"]
        for line in far.refused(count=2, reason="rejected"):
            assert "198.51.100.7" not in line["why"]
        with connect(far.address) as sock:
            sock.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 2\r\n")
            sock.shutdown(socket.SHUT_WR)
            assert b"\xcb\x00\x71\x07" in read_all(sock)


# -- in front of the connect side ------------------------------------------------------------------------------------------


def test_strangers_cannot_claim_to_be_anybody(tmp_path: Path) -> None:
    """Neither with a header nor without one: only the listed proxy may connect at all."""
    out = "    accept_proxy_protocol: {from: 127.0.0.66}\n"
    with Target() as target, tunnel(tmp_path, target.to, out=out) as (_, far):
        for said in (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\nhello", b"hello"):
            with dial(far.port) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(said)
                assert end_of(sock) == ("reset", b"")
        for line in far.refused(count=2, reason="proxy_header"):
            assert "may not send" in line["why"]
        with dial(far.port, "127.0.0.66") as sock:
            sock.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\nhello")
            assert read_exactly(sock, 5) == b"hello"
        assert target.dialled(1)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY " + b"x" * 5000])
def test_no_connection_without_a_valid_header(tmp_path: Path, said: bytes) -> None:
    with Target() as target, tunnel(tmp_path, target.to, out="    accept_proxy_protocol: true\n") as (_, far):
        with connect(far.address) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(said)
            assert end_of(sock) == ("reset", b"")
        assert far.refused(reason="proxy_header")
        assert target.dials == 0


def test_a_header_in_single_bytes_and_all_that_is_behind(tmp_path: Path) -> None:
    header = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
    with Target() as target, tunnel(tmp_path, target.to, out="    accept_proxy_protocol: true\n") as (near, far):
        with connect(far.address) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in header:
                sock.send(bytes([byte]))
            behind = bytes(range(256)) * 1000
            sock.sendall(behind)
            assert read_exactly(sock, len(behind)) == behind
        for proxy in (near, far):
            assert proxy.ended(origin="[2001:db8::7]:4711")


def test_a_health_check_leaves_no_alarm(tmp_path: Path) -> None:
    with Target() as target, tunnel(tmp_path, target.to, out="    accept_proxy_protocol: true\n") as (_, far):
        connect(far.address).close()
        with connect(far.address) as sock:
            sock.sendall(b"no header at all\r\n")
            (line,) = far.refused()
        assert line["reason"] == "proxy_header"
        assert not far.log("health check received")  # a line at debug
