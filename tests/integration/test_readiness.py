"""`ready: target`: a proxy is ready while its far target answers, asked end to end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from harness.admin import Admin
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, free_port, read_exactly

from stcp_proxy.admin.client import ask
from stcp_proxy.admin.readiness import HOLDS
from stcp_proxy.keys import write_secret_file

TOKEN = "a-token-of-sixteen-letters-and-more"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def near(folder: Path, keys: Keys, to: str, *, admin: str = "127.0.0.1:0", more: str = "") -> Proxy:
    (folder / "near.yaml").write_text(
        f"identity: client.key\nadmin: {admin}\n{more}peers: {{far: '{keys.server.public}'}}\ntunnels:\n"
        f"  cache: {{mode: connect, bind: '127.0.0.1:0', to: '{to}', peer: far, ready: target, suite: classic}}\n"
        f"  other: {{mode: connect, bind: '127.0.0.1:0', to: '127.0.0.1:1', peer: far}}\n"
    )
    return Proxy(["run", str(folder / "near.yaml")], log=folder / "near.log")


def listening(keys: Keys, target: str, folder: Path) -> Proxy:
    flags = ["--bind", "127.0.0.1:0", "--to", target, "--suite", "classic", *keys.listen()]
    return Proxy(["listen", *flags], log=folder / "far.log")


def test_the_far_target_is_asked_through_both_and_seldom(tmp_path: Path, keys: Keys) -> None:
    with Target() as target, listening(keys, target.to, tmp_path) as far, near(tmp_path, keys, far.addresses[0]) as proxy:
        admin = Admin(proxy.ready())
        for _ in range(5):
            assert admin.ask("/readyz") == (200, "ready\n")
        assert target.dialled(1)
        (end,) = far.ended()
        assert (end["reason"], end["bytes_to_wire"], end["bytes_to_plain"]) == ("finished", 0, 0)
        with connect(proxy.address) as sock:
            sock.sendall(b"served as ever")
            assert read_exactly(sock, 14) == b"served as ever"


def test_a_far_target_that_is_down_is_named_and_found_again(tmp_path: Path, keys: Keys) -> None:
    port = free_port()
    with listening(keys, f"127.0.0.1:{port}", tmp_path) as far, near(tmp_path, keys, far.addresses[0]) as proxy:
        admin = Admin(proxy.ready())
        status, words = admin.ask("/readyz")
        assert status == 503
        assert words.startswith("not ready: tunnel cache: rejected: the peer refused the connection: its target refused")
        assert admin.ask("/healthz")[0] == 200
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        with Target(listener=listener):
            wait_for(lambda: admin.ask("/readyz")[0] == 200, words="it is ready again", timeout=HOLDS + 20)


def test_a_far_proxy_that_is_down_and_who_may_know_where_it_is(tmp_path: Path, keys: Keys) -> None:
    write_secret_file(tmp_path / "admin.token", TOKEN)
    with near(tmp_path, keys, f"127.0.0.1:{free_port()}", more="admin_token: admin.token\n") as proxy:
        admin = Admin(proxy.ready(), TOKEN)
        status, words = admin.ask("/readyz")
        assert status == 503
        assert words.startswith("not ready: tunnel cache: peer_unreachable: the peer cannot be reached: cannot reach 127.0.0.1:")
        assert ask(Admin(proxy).plan, "/readyz") == (503, b"not ready: tunnel cache: peer_unreachable\n")


def test_a_listen_tunnel_asks_its_own_target(tmp_path: Path, keys: Keys) -> None:
    with Target() as target:
        (tmp_path / "far.yaml").write_text(
            f"identity: server.key\nadmin: 127.0.0.1:0\nready: target\ntunnels:\n"
            f"  up: {{mode: listen, bind: '127.0.0.1:0', to: '{target.to}', allow: '{keys.client.public}'}}\n"
            f"  down: {{mode: listen, bind: '127.0.0.1:0', to: '127.0.0.1:{free_port()}', allow: '{keys.client.public}'}}\n"
        )
        with Proxy(["run", str(tmp_path / "far.yaml")], log=tmp_path / "log") as proxy:
            status, words = Admin(proxy.ready()).ask("/readyz")
            assert (status, words.split(": ")[:3]) == (503, ["not ready", "tunnel down", "target_refused"])
            assert "tunnel up" not in words
            assert target.dialled(1)
