"""Names as targets, asked of a name server of the test's own: SRV records, addresses that change, a server gone silent."""

from __future__ import annotations

import collections
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.nameserver import NameServer
from harness.proxies import Keys, Proxy
from harness.sockets import Target, end_of_new, free_port


class Site:
    """Targets, and a listening proxy from a file that finds them by name; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.keys = Keys(folder)
        self.names = self._stack.enter_context(NameServer({}))

    def target(self, host: str = "127.0.0.1", port: int = 0) -> Target:
        """An application that says its port, then echoes."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        mine = f"{host}:{listener.getsockname()[1]}".encode().ljust(24)
        return self._stack.enter_context(Target(lambda sock: sock.sendall(mine), listener))

    def tunnel(self, to: str, settings: str = "", dns: str = "") -> Proxy:
        """A pair in one process that goes to `to` by name."""
        port = free_port()
        text = f"""\
identity: server.key
peers: {{server: "{self.keys.server.public}", client: "{self.keys.client.public}"}}
dns: {{servers: {self.names.address}{dns}}}
tunnels:
  far: {{mode: listen, bind: 127.0.0.1:{port}, to: "{to}", allow: client{settings}}}
  near: {{mode: connect, bind: 127.0.0.1:0, to: 127.0.0.1:{port}, peer: server, identity: client.key}}
"""
        (self._folder / "config.yaml").write_text(text)
        proxy = Proxy(["run", str(self._folder / "config.yaml")], log=self._folder / "proxy.log")
        self._stack.callback(proxy.stop)
        return proxy.ready()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()


def ask(proxy: Proxy) -> str:
    """Which target a connection reaches; empty where it is refused."""
    (line,) = proxy.log("listening", tunnel="near")
    host, _, port = line["address"].rpartition(":")
    how, said = end_of_new((host, int(port)))
    assert (how == "reset") == (said == b"")
    return said.decode().strip()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        yield made


def test_srv_records_by_priority_and_weight(site: Site) -> None:
    targets = [site.target() for _ in range(3)]
    ports = [int(target.to.rpartition(":")[2]) for target in targets]
    site.names.table = {
        ("_app._tcp.test", "SRV"): [f"0 30 {ports[0]} a.test.", f"0 10 {ports[1]} a.test.", f"1 1 {ports[2]} b.test."],
        ("a.test", "A"): ["127.0.0.1"],
        ("b.test", "A"): ["127.0.0.1"],
    }
    proxy = site.tunnel("srv:_app._tcp.test", ", balance: round-robin")
    seen = collections.Counter(ask(proxy) for _ in range(12))
    assert seen == {targets[0].to: 9, targets[1].to: 3}
    assert site.names.asked["_app._tcp.test", "SRV"] == 1
    targets[0].close()
    targets[1].close()
    assert ask(proxy) == targets[2].to


def test_an_address_that_changes(site: Site) -> None:
    """The old one is gone: the connection that finds out looks the name up again and comes through."""
    old = site.target("127.0.0.2")
    port = int(old.to.rpartition(":")[2])
    new = site.target("127.0.0.3", port)
    site.names.table = {("app.test", "A"): ["127.0.0.2"]}
    proxy = site.tunnel(f"app.test:{port}", dns=", ttl: 1h")
    assert ask(proxy) == old.to
    time.sleep(0.3)  # an answer that is newer than this is not doubted
    site.names.table = {("app.test", "A"): ["127.0.0.3"]}
    assert ask(proxy) == old.to
    old.close()
    assert ask(proxy) == new.to
    assert site.names.asked["app.test", "A"] == 2


def test_a_name_server_that_falls_silent(site: Site) -> None:
    target = site.target()
    port = target.to.rpartition(":")[2]
    site.names.table = {("app.test", "A"): ["127.0.0.1"]}
    proxy = site.tunnel(f"app.test:{port}", dns=", ttl: 1ms")
    assert ask(proxy) == target.to
    site.names.silent = True
    for _ in range(3):
        assert ask(proxy) == target.to
    proxy.wait_log("name lookup failed", name="app.test", timeout=30)
    site.names.silent = False
    assert ask(proxy) == target.to


@pytest.mark.parametrize("fault", ["SERVFAIL", "REFUSED", "NOTIMP", "NXDOMAIN", None])
def test_a_name_server_that_answers_one_family_badly(site: Site, fault: str | None) -> None:
    target = site.target()
    port = target.to.rpartition(":")[2]
    site.names.table = {("app.test", "A"): ["127.0.0.1"]}
    site.names.faults = {"AAAA": fault}
    proxy = site.tunnel(f"app.test:{port}")
    started = time.monotonic()
    assert ask(proxy) == target.to
    assert time.monotonic() - started < 1.5
    assert site.names.asked.keys() >= {("app.test", "A"), ("app.test", "AAAA")}


def test_a_short_name_is_refused_with_the_reason(site: Site) -> None:
    """The host's search domains are the system resolver's; name servers in the file are asked for the name as it stands."""
    proxy = site.tunnel("app:5432")
    assert ask(proxy) == ""
    line = proxy.refused(tunnel="far", reason="target_unreachable")[0]
    assert "without search domains: write the full name" in line["why"]


def test_all_addresses_of_a_name_in_turn(site: Site) -> None:
    first = site.target("127.0.0.2")
    port = int(first.to.rpartition(":")[2])
    others = [site.target(host, port) for host in ("127.0.0.3", "127.0.0.4")]
    site.names.table = {("pods.test", "A"): ["127.0.0.2", "127.0.0.3", "127.0.0.4"]}
    proxy = site.tunnel(f"pods.test:{port}", ", balance: least-connections")
    seen = collections.Counter(ask(proxy) for _ in range(9))
    assert seen == {target.to: 3 for target in (first, *others)}


def test_no_such_name_is_said_plainly(site: Site) -> None:
    proxy = site.tunnel("srv:_none._tcp.test")
    assert ask(proxy) == ""
    line = proxy.refused(tunnel="far", reason="target_unreachable")[0]
    assert "cannot resolve _none._tcp.test: no such SRV record" in line["why"]
