"""New keys for old ones while traffic runs, as docs/OPERATIONS.md tells it, and the end of a key that is taken out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import forked
from harness.admin import Admin
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import Target, connect, end_of, talk
from harness.traffic import busy

Config = dict[str, Any]


class Hosts:
    """Two hosts whose proxies run from files, each with a second key at hand; `settings` are for both files."""

    def __init__(self, folder: Path, to: str, **settings: Any) -> None:
        self.keys = Keys(folder)
        self.new_server, self.new_client = self.keys.add("server-2"), self.keys.add("client-2")
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app"}
        app = {"app": str(self.keys.client.public)}
        self.db = FileProxy(folder, "db", {"identity": "server.key", "peers": app, "tunnels": {"in": tunnel}} | settings)
        host, port = self.db.address_of("in")
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "db"}
        db = {"db": str(self.keys.server.public)}
        self.app = FileProxy(folder, "app", {"identity": "client.key", "peers": db, "tunnels": {"out": tunnel}} | settings)

    @property
    def address(self) -> tuple[str, int]:
        return self.app.address_of("out")

    @staticmethod
    def change(side: FileProxy, **settings: Any) -> dict[str, Any]:
        """Change top-level settings of a side's file and reload."""
        return side.reload(copy.deepcopy(side.config) | settings)

    def refused(self) -> list[dict[str, Any]]:
        return self.app.log("connection refused") + self.db.log("connection refused")

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()


@pytest.fixture
def hosts(tmp_path: Path, echo: Target) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, echo.to)
    yield hosts
    hosts.stop()


def by(side: FileProxy, key: str) -> list[dict[str, Any]]:
    return side.log("connection closed", peer=key)


def test_rotation_of_the_connecting_hosts_key(hosts: Hosts) -> None:
    old, new = str(hosts.keys.client.public), str(hosts.new_client.public)
    with connect(hosts.address) as lasting:
        talk(lasting)
        with busy(hosts.address, pumping=0) as (_, hammer):
            hosts.change(hosts.db, peers={"app": [new, old]})
            hammer.go_on()
            hosts.change(hosts.app, identity=["client-2.key", "client.key"])
            hammer.go_on()
            talk(lasting)  # it came by the old key, which is still there
        with busy(hosts.address, pumping=5) as (pumps, hammer):
            hosts.change(hosts.db, peers={"app": new})
            assert end_of(lasting) == ("reset", b"")  # only what still used the old key
            hosts.change(hosts.app, identity="client-2.key")
            pumps.go_on()
            hammer.go_on()
    assert not hosts.refused()
    assert not hosts.app.log("handshake retried with the next key")
    assert len(hosts.db.ended(reason="aborted")) == 1
    assert "key revoked" in hosts.app.ended(reason="peer_reset")[0]["why"]


def test_rotation_of_the_listening_hosts_key(hosts: Hosts) -> None:
    old, new = str(hosts.keys.server.public), str(hosts.new_server.public)
    with busy(hosts.address, pumping=0) as (_, hammer):
        hosts.change(hosts.db, identity=["server.key", "server-2.key"])
        hammer.go_on()
        hosts.change(hosts.app, peers={"db": [new, old]})
        hammer.go_on()
    with busy(hosts.address, pumping=5) as (pumps, hammer):
        hosts.change(hosts.db, identity="server-2.key")
        hammer.go_on()
        hosts.change(hosts.app, peers={"db": new})
        pumps.go_on()
        hammer.go_on()
    assert not hosts.refused()
    assert not hosts.app.log("handshake retried with the next key")


def test_steps_in_the_wrong_order_refuse_nobody_either(hosts: Hosts) -> None:
    """The connecting host goes first with everything: it finds out what the other side takes, and finds the new keys once they
    are there."""
    with busy(hosts.address, pumping=3) as (pumps, hammer):
        hosts.change(hosts.app, identity=["client-2.key", "client.key"])
        hammer.go_on()
        hosts.change(hosts.app, peers={"db": [str(hosts.new_server.public), str(hosts.keys.server.public)]})
        hammer.go_on()
        assert hosts.app.log("handshake retried with the next key")
        hosts.change(hosts.db, identity=["server-2.key", "server.key"])
        hammer.go_on()
        hosts.change(hosts.db, peers={"app": [str(hosts.keys.client.public), str(hosts.new_client.public)]})
        hammer.go_on()
        pumps.go_on()
    hosts.app.reload()  # makes it look again at once; by itself it does within a minute
    with busy(hosts.address, pumping=3) as (pumps, hammer):
        hosts.change(hosts.app, peers={"db": str(hosts.new_server.public)}, identity="client-2.key")
        hammer.go_on()
        hosts.change(hosts.db, peers={"app": str(hosts.new_client.public)}, identity="server-2.key")
        hammer.go_on()
        pumps.go_on()
    assert not hosts.app.log("connection refused")


@pytest.mark.parametrize("side", ["own", "peer"])
@pytest.mark.parametrize("where", ["app", "db"])
def test_key_that_is_taken_out_ends_its_connections(hosts: Hosts, side: str, where: str) -> None:
    proxy, other = (hosts.app, hosts.db) if where == "app" else (hosts.db, hosts.app)
    with connect(hosts.address) as client:
        talk(client)
        if side == "own":
            hosts.change(proxy, identity="client-2.key" if where == "app" else "server-2.key")
        else:
            key = hosts.new_server if where == "app" else hosts.new_client
            hosts.change(proxy, peers={("db" if where == "app" else "app"): str(key.public)})
        assert end_of(client) == ("reset", b"")
    (line,) = proxy.log("key revoked: its connections end")
    assert line["connections"] == 1
    assert "key revoked" in proxy.ended()[0]["why"]
    assert "key revoked" in other.ended(reason="peer_reset")[0]["why"]
    assert proxy.stop() == 0


def test_grace(hosts: Hosts) -> None:
    """Connections go on until it is over; a key that comes back meanwhile keeps them."""
    old, new = str(hosts.keys.client.public), str(hosts.new_client.public)
    hosts.change(hosts.db, revoke_grace="3s")
    with connect(hosts.address) as client:
        talk(client)
        start = time.monotonic()
        hosts.change(hosts.db, peers={"app": new})
        talk(client)
        hosts.change(hosts.db, peers={"app": [new, old]})
        while time.monotonic() < start + 4:
            talk(client)
            time.sleep(0.05)
        hosts.change(hosts.db, revoke_grace="300ms")
        hosts.change(hosts.db, peers={"app": new})
        assert end_of(client) == ("reset", b"")


def test_key_that_leaves_with_its_tunnel(hosts: Hosts) -> None:
    """Its connections do not drain: the file does not name it any more. Where it does, they do."""
    config = copy.deepcopy(hosts.db.config)
    config["tunnels"] = {"else": dict(config["tunnels"]["in"], bind="127.0.0.1:1")}
    with connect(hosts.address) as client:
        talk(client)
        hosts.db.reload(config | {"tunnels": {"else": dict(config["tunnels"]["else"], bind="127.0.0.1:0")}})
        talk(client)
        config["tunnels"]["else"]["bind"] = "127.0.0.1:0"
        hosts.db.reload(config | {"peers": {"app": str(hosts.new_client.public)}})
        assert end_of(client) == ("reset", b"")
    assert "key revoked" in hosts.db.ended(tunnel="in")[0]["why"]


def test_connection_that_is_being_opened(tmp_path: Path, echo: Target) -> None:
    """Its peer has proved itself and the target does not answer: REJECT says the same as RESET would."""
    import socket

    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(hung.getsockname())
        hosts = Hosts(tmp_path, f"127.0.0.1:{hung.getsockname()[1]}")
        with connect(hosts.address) as client:
            client.sendall(b"word")
            before = hosts.db.descriptors()
            wait_for(lambda: hosts.db.descriptors() > before or hosts.db.descriptors() > 12, words="the dial is under way")
            time.sleep(0.3)
            hosts.change(hosts.db, peers={"app": str(hosts.new_client.public)})
            assert end_of(client) == ("reset", b"")
        assert "key revoked" in hosts.app.refused(reason="rejected")[0]["why"]
        assert hosts.db.refused(reason="key_revoked")
        hosts.stop()
        for filler in fillers:
            filler.close()


def test_changed_shared_secret(tmp_path: Path, echo: Target) -> None:
    keys = Keys(tmp_path, psk=True)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": echo.to, "psk": "shared.psk"}
    with FileProxy(tmp_path, "db", {"tunnels": {"in": tunnel}}) as db:
        assert isinstance(db, FileProxy)
        host, port = db.address_of("in")
        out = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "psk": "shared.psk"}
        with FileProxy(tmp_path, "app", {"tunnels": {"out": out}}) as app:
            assert isinstance(app, FileProxy)
            with connect(app.address_of("out")) as client:
                talk(client)
                db.reload({"tunnels": {"in": tunnel | {"idle_timeout": "1h"}}})
                talk(client)
                db.reload({"tunnels": {"in": tunnel | {"psk": "other.psk"}}})
                assert end_of(client) == ("reset", b"")
            app.reload({"tunnels": {"out": out | {"psk": "other.psk"}}})
            with connect(app.address_of("out")) as client:
                talk(client)
    assert keys.psk


def test_can_this_key_go(tmp_path: Path, echo: Target) -> None:
    """Both sides answer it right at every step of a rotation, in `/status` and in the table."""
    hosts = Hosts(tmp_path, echo.to, admin="127.0.0.1:0")
    old, new = str(hosts.keys.client.public), str(hosts.new_client.public)
    db, app = Admin(hosts.db), Admin(hosts.app)

    def asked(side: Admin, key: str) -> tuple[str, str]:
        (found,) = (each for each in side.status()["keys"] if each["key"] == key)
        return found["may_go"], found["why"]

    def until(side: Admin, key: str, answer: tuple[str, str]) -> None:
        wait_for(lambda: asked(side, key) == answer, words=f"the answer is {answer}")

    alone, free = ("no", "it is the only one"), ("yes", "every peer has used another key since")
    busy_with_one = ("no", "open connections: 1")
    try:
        assert asked(db, old) == asked(app, old) == alone
        hosts.change(hosts.db, peers={"app": [new, old]})
        assert asked(db, old) == asked(db, new) == ("unknown", "not seen since the start: app")
        with connect(hosts.address) as first:
            talk(first)
            until(db, old, busy_with_one)
            assert asked(db, new) == free  # nobody has come to need it yet
        until(db, old, ("no", "app has not used another key since"))
        assert asked(app, old) == alone
        with connect(hosts.address) as lasting:
            talk(lasting)
            hosts.change(hosts.app, identity=["client-2.key", "client.key"])
            with connect(hosts.address) as second:
                talk(second)
                for side in (db, app):
                    until(side, old, busy_with_one)
                    assert asked(side, new) == busy_with_one
        for side in (db, app):
            until(side, old, free)
            until(side, new, ("no", f"{'app' if side is db else 'db'} has not used another key since"))
        table = forked.run("status", "--admin", db.text, check=True).stdout
        assert "yes: every peer has used another key since" in table
        hosts.change(hosts.db, peers={"app": new})
        hosts.change(hosts.app, identity="client-2.key")
        assert asked(db, new) == asked(app, new) == alone
        with connect(hosts.address) as after:
            talk(after)
    finally:
        hosts.stop()
    assert not hosts.refused()
