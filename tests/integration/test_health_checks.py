"""Health checks from outside and to targets: what each side sees, and what no alert may see."""

from __future__ import annotations

import socket
from pathlib import Path

from harness.admin import Admin
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, reset

HEADER = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"
"""A PROXY header of version 2 without a client, as the format has it for health checks."""


def test_a_load_balancers_checks_are_no_refusals(tmp_path: Path, echo: Target) -> None:
    """Closed or reset without a byte: neither in the log, nor among refusals or handshakes; they have a count of their own."""
    keys = Keys(tmp_path)
    flags = ["--bind", "127.0.0.1:0", "--to", echo.to, "--admin", "127.0.0.1:0", *keys.listen()]
    with Proxy(["listen", *flags], log=tmp_path / "log") as proxy:
        admin = Admin(proxy.ready())
        for number in range(20):
            sock = connect(proxy.address)
            if number % 2:
                reset(sock)
            else:
                sock.close()
        wait_for(lambda: admin.metric("stcp_health_checks_total", reason="tcp_check") == 20, words="all are counted")
        assert admin.metric("stcp_connections_refused_total") == admin.metric("stcp_handshakes_total") == 0
        status = admin.status()
        assert status["refusals"] == []
        assert status["tunnels"][0]["refused"] == {}
        assert not proxy.log("connection refused")
        assert not proxy.log("health check received")


def test_a_target_that_expects_a_proxy_header_gets_one_from_each_check(tmp_path: Path) -> None:
    keys, heard = Keys(tmp_path), list[bytes]()

    def read(sock: socket.socket) -> None:
        data = b""
        while part := sock.recv(4096):
            data += part
        heard.append(data)

    with Target(read) as target:
        (tmp_path / "far.yaml").write_text(
            f"identity: server.key\nadmin: 127.0.0.1:0\nready: target\ntunnels:\n"
            f"  in: {{mode: listen, bind: '127.0.0.1:0', allow: '{keys.client.public}', proxy_protocol: v2,\n"
            f"    health: {{interval: 1s}}, to: '{target.to}',\n"
            f"    services: {{web: '{target.to}', old: {{to: '{target.to}', proxy_protocol: none}}}}}}\n"
        )
        with Proxy(["run", str(tmp_path / "far.yaml")], log=tmp_path / "log") as proxy:
            admin = Admin(proxy.ready())
            wait_for(lambda: {HEADER, b""} <= set(heard), words="each target is checked in its own way")
            assert admin.ask("/readyz") == (200, "ready\n")
    assert set(heard) == {HEADER, b""}
