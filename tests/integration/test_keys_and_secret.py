"""A shared secret beside keys: both are needed, on both sides, and neither alone is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.files import FileProxy
from harness.proxies import Keys
from harness.sockets import Target, connect, end_of, end_of_new, talk


class Hosts:
    """Two hosts whose files name keys. `listen` and `connect` are further settings of their tunnels."""

    def __init__(self, folder: Path, to: str, listen: dict[str, Any], connect: dict[str, Any]) -> None:
        self.keys = Keys(folder)
        keys = {"identity": "server.key", "peers": {"app": str(self.keys.client.public)}}
        inbound = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app"} | listen
        self.db = FileProxy(folder, "db", keys | {"tunnels": {"in": inbound}})
        host, port = self.db.address_of("in")
        keys = {"identity": "client.key", "peers": {"db": str(self.keys.server.public)}}
        outbound = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "db"} | connect
        self.app = FileProxy(folder, "app", keys | {"tunnels": {"out": outbound}})

    @property
    def address(self) -> tuple[str, int]:
        return self.app.address_of("out")

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()


@pytest.fixture
def hosts(tmp_path: Path, echo: Target, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, echo.to, *request.param)
    yield hosts
    hosts.stop()


BOTH = ({"psk": "shared.psk"}, {"psk": "shared.psk"})


@pytest.mark.parametrize("hosts", [BOTH], indirect=True)
def test_the_listener_still_knows_who_calls(hosts: Hosts) -> None:
    with connect(hosts.address) as sock:
        talk(sock)
    assert hosts.db.wait_log("connection closed")[0]["peer"] == "app"
    assert hosts.app.wait_log("connection closed")[0]["peer"] == "db"


@pytest.mark.parametrize("hosts", [BOTH], indirect=True)
def test_another_secret_ends_the_connections(hosts: Hosts) -> None:
    with connect(hosts.address) as sock:
        talk(sock)
        tunnel = hosts.db.config["tunnels"]["in"] | {"psk": "other.psk"}
        change = hosts.db.reload(hosts.db.config | {"tunnels": {"in": tunnel}})
        assert end_of(sock) == ("reset", b"")
    assert "another shared secret beside keys" in str(change)


@pytest.mark.parametrize("hosts", [({"psk": "shared.psk"}, {"psk": "other.psk"})], indirect=True)
def test_a_wrong_secret_shows_at_the_initiator(hosts: Hosts) -> None:
    assert end_of_new(hosts.address) == ("reset", b"")
    refused = hosts.app.wait_log("connection refused")[0]
    assert refused["reason"] == "not_authentic"
    assert "shared secret" in refused["remedy"]
    assert not hosts.db.log("connection closed")


@pytest.mark.parametrize("hosts", [({"psk": "shared.psk"}, {}), ({}, {"psk": "shared.psk"})], indirect=True)
def test_one_side_without_the_secret_is_refused(hosts: Hosts) -> None:
    assert end_of_new(hosts.address) == ("reset", b"")
    assert hosts.db.wait_log("connection refused")[0]["reason"] == "suite"
    assert hosts.app.wait_log("connection refused")[0]["reason"] == "handshake_closed"
