"""`watch`: files that change by themselves are read, without a signal, whole or not at all, and nobody is refused meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import forked
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import Target, connect, end_of, talk
from harness.traffic import busy

from stcp_proxy.keys import PublicKey

REFUSED = "reload refused: everything goes on as before"


class Fleet:
    """A listener whose peers are files of a directory, and one of these peers. Both watch their files."""

    def __init__(self, folder: Path, to: str, **settings: Any) -> None:
        self.folder, self.keys = folder, Keys(folder)
        self.peers = folder / "peers.d"
        self.peers.mkdir()
        self.write("app", self.keys.client.public)
        both = {"watch": "100ms"} | settings
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "@apps"}
        config = {
            "identity": "server.key",
            "peers": {"include": "peers.d"},
            "admin": f"unix:{folder}/admin",
            "tunnels": {"in": tunnel},
        }
        self.db = FileProxy(folder, "db", config | both)
        host, port = self.db.address_of("in")
        out = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": str(self.keys.server.public)}
        self.app = FileProxy(folder, "app", {"identity": "client.key", "tunnels": {"out": out}} | both)

    @property
    def address(self) -> tuple[str, int]:
        return self.app.address_of("out")

    def write(self, name: str, *keys: PublicKey) -> None:
        """Replace a peer's file as a careful program does: a new file, renamed over the old one."""
        new = self.peers / f".{name}"
        new.write_text("# groups: apps\n" + "".join(f"{key}\n" for key in keys))
        new.rename(self.peers / f"{name}.pub")

    def others(self, count: int) -> None:
        for number in range(count):
            self.write(f"other-{number}", self.keys.add(f"other-{number}").public)

    def applied(self, side: FileProxy, before: int) -> None:
        side.wait_log("reloaded", count=before + 1)

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()


@pytest.fixture
def fleet(tmp_path: Path, echo: Target) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, echo.to)
    yield fleet
    fleet.stop()


def says(address: tuple[str, int]) -> None:
    with connect(address) as client:
        talk(client)


def reloads(side: FileProxy) -> int:
    return len(side.log("reloaded"))


@pytest.mark.parametrize("workers", [1, 2])
def test_keys_are_renewed_under_traffic(tmp_path: Path, echo: Target, workers: int) -> None:
    """Three new keys of the connecting host, each by files alone: none of the connections is lost, none is refused."""
    fleet = Fleet(tmp_path, echo.to, **({"workers": workers} if workers > 1 else {}))
    ring = ["client.key"]
    known = [fleet.keys.client.public]
    try:
        with busy(fleet.address, pumping=5) as (pumps, hammer):
            for number in range(3):
                new = fleet.keys.add(f"new-{number}")
                before = reloads(fleet.db)
                known.append(new.public)
                fleet.write("app", *known)
                fleet.applied(fleet.db, before)
                before = reloads(fleet.app)
                ring.insert(0, f"new-{number}.key")
                fleet.app.write(fleet.app.config | {"identity": ring})
                fleet.applied(fleet.app, before)
                pumps.go_on()
                hammer.go_on()
        assert fleet.db.log("connection refused") == fleet.app.log("connection refused") == []
        assert fleet.db.log(REFUSED) == fleet.app.log(REFUSED) == []
        assert fleet.db.log("files changed")[0]["files"] == [str(fleet.peers)]
    finally:
        fleet.stop()


def test_a_peer_whose_file_is_removed_loses_its_connections(fleet: Fleet) -> None:
    fleet.others(1)
    wait_for(lambda: reloads(fleet.db) >= 1, words="the other peer is read")
    before = reloads(fleet.db)
    with connect(fleet.address) as client:
        talk(client)
        (fleet.peers / "app.pub").unlink()
        fleet.applied(fleet.db, before)
        assert end_of(client) == ("reset", b"")
    assert "key revoked" in fleet.db.ended(reason="aborted")[0]["why"]


def test_a_directory_of_kubernetes_is_exchanged(fleet: Fleet) -> None:
    """A ConfigMap: every file is a link through `..data`, which is replaced by one rename."""
    stranger = fleet.keys.add("second")

    def publish(version: int, *keys: PublicKey) -> None:
        there = fleet.peers / f"..{version}"
        there.mkdir()
        for number, key in enumerate(keys):
            (there / f"pod-{number}.pub").write_text(f"# groups: apps\n{key}\n")
        (fleet.peers / "..new").symlink_to(there.name)
        (fleet.peers / "..new").rename(fleet.peers / "..data")
        for number in range(len(keys)):
            link = fleet.peers / f"pod-{number}.pub"
            if not link.is_symlink():
                link.symlink_to(f"..data/{link.name}")

    (fleet.peers / "app.pub").unlink()
    publish(1, fleet.keys.client.public)
    fleet.applied(fleet.db, 0)
    says(fleet.address)
    before = reloads(fleet.db)
    os.utime(fleet.peers / "..1" / "pod-0.pub")
    publish(2, stranger.public, fleet.keys.client.public)
    fleet.applied(fleet.db, before)
    says(fleet.address)
    assert str(stranger.public) in json.dumps(fleet.db.log("reloaded")[-1]["keys_in"])
    assert fleet.db.log("connection refused") == []


@pytest.mark.parametrize("content", ["", "# groups: apps\n", "# groups: apps\nstcp-pub:abc"])
def test_a_half_written_file_changes_nothing_until_it_is_whole(fleet: Fleet, content: str) -> None:
    new = fleet.keys.add("new")
    (fleet.peers / "next.pub").write_text(content)
    line = fleet.db.wait_log(REFUSED)[0]
    assert "next.pub" in line["why"]
    with connect(fleet.address) as client:
        talk(client)
        (fleet.peers / "next.pub").write_text(f"# groups: apps\n{new.public}\n")
        fleet.applied(fleet.db, 0)
        talk(client)
    assert str(new.public) in json.dumps(fleet.db.log("reloaded"))


def test_an_empty_directory_revokes_nobody(fleet: Fleet) -> None:
    with connect(fleet.address) as client:
        talk(client)
        (fleet.peers / "app.pub").rename(fleet.folder / "aside")
        assert "contains no .pub files" in fleet.db.wait_log(REFUSED)[0]["why"]
        talk(client)
        says(fleet.address)
        (fleet.folder / "aside").rename(fleet.peers / "app.pub")
        says(fleet.address)
    assert reloads(fleet.db) == 0


def status(fleet: Fleet, *args: str) -> subprocess.CompletedProcess[str]:
    return forked.run("reload", *args, str(fleet.db.file))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_directory_that_lost_most_of_its_peers_needs_force(tmp_path: Path, echo: Target, workers: int) -> None:
    fleet = Fleet(tmp_path, echo.to, **({"workers": workers} if workers > 1 else {}))
    try:
        fleet.others(4)
        wait_for(lambda: _keys(fleet) == 5, words="all peers are read")
        for number in range(3):
            (fleet.peers / f"other-{number}.pub").unlink()
        line = fleet.db.wait_log(REFUSED)[0]
        assert line["why"] == "the peer directories have 2 of 5 peers left, as if they were still being written"
        assert _keys(fleet) == 5
        says(fleet.address)
        refused = status(fleet)
        assert refused.returncode == 1
        assert "have 2 of 5 peers left" in refused.stderr
        assert status(fleet, "--check", "--force").stdout.count("- key other-") == 3
        assert _keys(fleet) == 5
        forced = status(fleet, "--force")
        assert (forced.returncode, forced.stdout.count("- key other-")) == (0, 3)
        wait_for(lambda: _keys(fleet) == 2, words="three peers are gone")
        says(fleet.address)
    finally:
        fleet.stop()


def _keys(fleet: Fleet) -> int:
    """How many peers the listener's last reload left: those of the start, and what came and went since."""
    lines = fleet.db.log("reloaded")
    came = {key["key"] for line in lines for key in line.get("keys_in", [])}
    gone = {key["key"] for line in lines for key in line.get("keys_out", [])}
    return 1 + len(came) - len(gone)


def test_the_file_itself_and_a_key_file_are_watched(fleet: Fleet) -> None:
    config = fleet.db.config | {"watch": "200ms"}
    config["tunnels"]["in"]["max_connections"] = 77
    fleet.db.write(config)
    fleet.applied(fleet.db, 0)
    assert fleet.db.log("reloaded")[0]["changed"]["in"]["max_connections"] == ["10000", "77"]
    fleet.db.write({name: value for name, value in config.items() if name != "watch"})
    fleet.applied(fleet.db, 1)
    assert fleet.db.log("reloaded")[1]["settings"]["watch"] == ["0.2", "none"]
    says(fleet.address)
    new = fleet.keys.add("next")
    fleet.write("app", fleet.keys.client.public, new.public)
    fleet.db.reload()
    (fleet.folder / "next.key").replace(fleet.folder / "client.key")
    fleet.applied(fleet.app, 0)
    assert [key["key"] for key in fleet.app.log("reloaded")[0]["keys_in"]] == [str(new.public)]
    says(fleet.address)
