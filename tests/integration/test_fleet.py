"""A fleet with an authority of its own: certificates are renewed, revoked, and their authority exchanged, by files alone."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.files import FileProxy
from harness.sockets import Target, connect, end_of, end_of_new, talk
from harness.traffic import busy

from stcp_proxy.ca import folder
from stcp_proxy.ca.folder import AuthorityFolder, Order

DAY = datetime.timedelta(days=1)
REFUSED = "reload refused: everything goes on as before"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Fleet:
    """An authority, a listener and a connecting host, each with its files in a folder of its own. Both watch them."""

    def __init__(self, path: Path, to: str) -> None:
        self.path, self._issued = path, 0
        self.ca = self.authority("ca")
        self.copy(self.issue(self.ca, "db"), "db")
        self.copy(self.issue(self.ca, "app"), "app")
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "spiffe://prod/app"}
        self.db = FileProxy(path / "db", "db", self._config({"in": tunnel}))
        host, port = self.db.address_of("in")
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "dns:db.prod.internal"}
        self.app = FileProxy(path / "app", "app", self._config({"out": tunnel}))

    @staticmethod
    def _config(tunnels: dict[str, Any]) -> dict[str, Any]:
        return {
            "certificate": {"chain": "tls.crt", "key": "tls.key"},
            "authorities": {"prod": {"bundle": "ca.crt", "crl": "ca.crl"}},
            "watch": "100ms",
            "tunnels": tunnels,
        }

    @property
    def address(self) -> tuple[str, int]:
        return self.app.address_of("out")

    def authority(self, name: str) -> AuthorityFolder:
        folder.create(self.path / name, name, passphrase=None, now=now(), validity=30 * DAY)
        return AuthorityFolder(self.path / name)

    def issue(self, ca: AuthorityFolder, name: str) -> Path:
        """The folder that the authority writes for a host."""
        self._issued += 1
        out = self.path / f"issued-{self._issued}"
        order = Order((f"dns:{name}.prod.internal", f"spiffe://prod/{name}"), ("connect", "listen"), DAY)
        ca.issue(order, out, ask=bytes, now=now())
        return out

    def copy(self, issued: Path, host: str, *names: str) -> None:
        """Bring files to a host, one after the other."""
        there = self.path / host
        there.mkdir(exist_ok=True)
        for name in names or ("tls.key", "tls.crt", "ca.crt", "ca.crl"):
            shutil.copy2(issued / name, there / f".{name}")
            (there / f".{name}").rename(there / name)

    def write(self, host: str, name: str, content: str) -> None:
        (self.path / host / f".{name}").write_text(content)
        (self.path / host / f".{name}").rename(self.path / host / name)

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()


@pytest.fixture
def fleet(tmp_path: Path, echo: Target) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, echo.to)
    yield fleet
    fleet.stop()


def reloads(side: FileProxy) -> int:
    return len(side.log("reloaded"))


def test_certificates_are_renewed_under_traffic(fleet: Fleet) -> None:
    """Both hosts in turn: no connection is lost, none is refused."""
    with busy(fleet.address, pumping=5) as (pumps, hammer):
        for name in ("app", "db", "app"):
            side = fleet.app if name == "app" else fleet.db
            before = reloads(side)
            fleet.copy(fleet.issue(fleet.ca, name), name, "tls.key", "tls.crt")
            side.wait_log("reloaded", count=before + 1)
            pumps.go_on()
            hammer.go_on()
    assert fleet.db.log("connection refused") == fleet.app.log("connection refused") == []


def test_a_key_that_does_not_fit_yet_changes_nothing(fleet: Fleet) -> None:
    new = fleet.issue(fleet.ca, "app")
    with connect(fleet.address) as client:
        talk(client)
        fleet.copy(new, "app", "tls.key")
        fleet.app.wait_log(REFUSED)
        talk(client)
        with connect(fleet.address) as other:
            talk(other)
        fleet.copy(new, "app", "tls.crt")
        fleet.app.wait_log("reloaded")
        talk(client)


def test_a_revoked_certificate_ends_its_connections(fleet: Fleet) -> None:
    with connect(fleet.address) as client:
        talk(client)
        fleet.ca.revoke([str(fleet.path / "app" / "tls.crt")], ask=bytes, now=now())
        fleet.copy(fleet.ca.path, "db", "ca.crl")
        assert end_of(client) == ("reset", b"")
    assert end_of_new(fleet.address)[0] == "reset"
    assert fleet.db.refused(reason="certificate_revoked")


def test_the_authority_is_exchanged_under_traffic(fleet: Fleet) -> None:
    """As docs/FLEET.md tells it; no connection is refused at any step."""
    new = fleet.authority("ca-2")
    old_pem, new_pem = ((ca.path / "ca.crt").read_text() for ca in (fleet.ca, new))
    old_list, new_list = ((ca.path / "ca.crl").read_text() for ca in (fleet.ca, new))
    sides = {"db": fleet.db, "app": fleet.app}

    def change(name: str, *steps: tuple[str, str]) -> None:
        before = reloads(sides[name])
        for file, content in steps:
            fleet.write(name, file, content)
        sides[name].wait_log("reloaded", count=before + 1)

    with busy(fleet.address, pumping=0) as (_, hammer):
        for name in sides:
            change(name, ("ca.crt", old_pem + new_pem), ("ca.crl", old_list + new_list))
            hammer.go_on()
        for name, side in sides.items():
            before = reloads(side)
            fleet.copy(fleet.issue(new, name), name, "tls.key", "tls.crt")
            side.wait_log("reloaded", count=before + 1)
            hammer.go_on()
    with busy(fleet.address, pumping=3) as (pumps, hammer):
        for name in sides:
            change(name, ("ca.crt", new_pem), ("ca.crl", new_list))
            pumps.go_on()
            hammer.go_on()
    assert fleet.db.log("connection refused") == fleet.app.log("connection refused") == []
