"""A unix socket whose file was removed or replaced: readiness, status, metrics and doctor notice, and a reload binds it anew."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import forked
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, end_of, free_port, read_exactly


class Site:
    """A pair in one process; its near tunnel and its admin address are unix sockets."""

    def __init__(self, folder: Path, target: Target, workers: int) -> None:
        keys, port = Keys(folder), free_port()
        self.near, self.admin, self.config = folder / "near.sock", folder / "admin.sock", folder / "config.yaml"
        self.config.write_text(f"""\
identity: server.key
workers: {workers}
admin: unix:{self.admin}
peers: {{server: "{keys.server.public}", client: "{keys.client.public}"}}
tunnels:
  far: {{mode: listen, bind: 127.0.0.1:{port}, to: "{target.to}", allow: client}}
  near: {{mode: connect, bind: "unix:{self.near}", to: 127.0.0.1:{port}, peer: server, identity: client.key}}
""")
        self.proxy = Proxy(["run", str(self.config)], log=folder / "proxy.log").ready()

    def echo(self) -> None:
        with connect(str(self.near)) as client:
            client.sendall(b"word")
            assert read_exactly(client, 4) == b"word"

    def ask(self, path: str) -> tuple[int, str]:
        with connect(str(self.admin)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            _, data = end_of(sock)
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def reload(self, count: int) -> None:
        self.proxy.signal(signal.SIGHUP)
        self.proxy.wait_log("reloaded", count=count)


@pytest.fixture(params=[1, 2], ids=["alone", "workers"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with Target() as target:
        made = Site(tmp_path, target, request.param)
        try:
            yield made
        finally:
            made.proxy.stop()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_socket_file_that_is_lost_is_noticed_and_bound_anew(site: Site, how: str) -> None:
    site.echo()
    assert site.ask("/readyz")[0] == 200
    site.near.unlink()
    if how == "replaced":
        with socket.socket(socket.AF_UNIX) as other:  # of a program that has ended
            other.bind(str(site.near))
    wait_for(lambda: site.ask("/readyz")[0] == 503, words="a probe sees it; probes of half a second share one report")
    assert "tunnel near: socket_lost" in site.ask("/readyz")[1]
    assert 'stcp_tunnel_listening{mode="connect",tunnel="near"} 0' in site.ask("/metrics")[1]
    tunnels = {tunnel["name"]: tunnel for tunnel in json.loads(site.ask("/status")[1])["tunnels"]}
    assert (tunnels["near"]["listening"], tunnels["near"]["lost"]) == ([], [f"unix:{site.near}"])
    done = forked.run("doctor", "--json", str(site.config))
    assert "no client can connect: its socket file was removed or replaced" in done.stdout
    site.reload(1)
    site.echo()
    wait_for(lambda: site.ask("/readyz")[0] == 200, words="a probe sees that it is back")
    site.reload(2)
    site.echo()


def test_a_path_that_another_program_listens_on_is_not_taken_from_it(site: Site) -> None:
    site.near.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(site.near))
        other.listen()
        site.proxy.signal(signal.SIGHUP)
        (line,) = site.proxy.wait_log("reload refused: everything goes on as before")
        assert "another program has bound" in line["why"]
    site.near.unlink()
    site.reload(1)
    site.echo()


def test_the_admin_address_is_bound_anew(site: Site) -> None:
    assert site.ask("/healthz") == (200, "ok\n")
    site.admin.unlink()
    site.reload(1)
    wait_for(site.admin.exists, words="the admin socket is back")
    assert site.ask("/healthz") == (200, "ok\n")
    site.echo()
