"""Peers that know each other by certificates: how they meet, what each side logs, and every refusal with its own words."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness import forked
from harness.admin import Admin
from harness.certificates import DAY, Leaf, TestAuthority
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, end_of, end_of_new, talk
from harness.traffic import Pumping, busy

DB, APP = "dns:db.prod.internal", "spiffe://prod/ns/web/sa/app"
Config = dict[str, Any]


class Fleet:
    """A listening host and a connecting host, each with a certificate of one authority.

    Args:
        folder: the folder of all files.
        to: the target.
        kind: type of all keys.
    """

    def __init__(self, folder: Path, to: str, kind: str = "ed25519") -> None:
        self.folder, self.to = folder, to
        self.authority = TestAuthority("p256" if kind == "x25519" else kind)
        self.authority.bundle(folder / "ca.crt")
        self.server, self.client = self.authority.issue(DB, kind=kind), self.authority.issue(APP, kind=kind)
        self.running: list[Proxy] = []

    def listener(self, **changes: Any) -> FileProxy:
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": self.to, "allow": ["spiffe://prod/ns/*/sa/app"]}
        tunnel |= changes.pop("tunnel", {})
        config = {"certificate": self.server.write(self.folder, "db"), "authorities": {"prod": "ca.crt"}} | changes
        return self._run("listener", config | {"tunnels": {"in": tunnel}})

    def connector(self, listener: FileProxy, *, leaf: Leaf | None = None, **changes: Any) -> FileProxy:
        host, port = listener.address_of("in")
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": DB} | changes.pop("tunnel", {})
        config = {"certificate": (leaf or self.client).write(self.folder, "app"), "authorities": {"prod": "ca.crt"}} | changes
        return self._run("connector", config | {"tunnels": {"out": tunnel}})

    def _run(self, name: str, config: Config) -> FileProxy:
        proxy = FileProxy(self.folder, name, config)
        self.running.append(proxy)
        return proxy

    def stop(self) -> None:
        for proxy in reversed(self.running):
            proxy.stop()


@pytest.fixture
def fleet(tmp_path: Path, echo: Target) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, echo.to)
    yield fleet
    fleet.stop()


@pytest.mark.parametrize("kind", ["ed25519", "p256", "p384", "rsa", "x25519"])
def test_both_sides_log_names_authority_and_serial(kind: str, tmp_path: Path, echo: Target) -> None:
    fleet = Fleet(tmp_path, echo.to, kind)
    try:
        listener = fleet.listener()
        connector = fleet.connector(listener)
        for _ in range(2):  # the second one meets a remembered certificate
            with connect(connector.address_of("out")) as sock:
                talk(sock)
        for proxy, peer, leaf in ((listener, APP, fleet.client), (connector, DB, fleet.server)):
            for line in proxy.wait_log("connection closed", count=2):
                assert (line["peer"], line["authority"], line["serial"]) == (peer, "prod", leaf.serial)
                assert line["not_after"].endswith("UTC")
    finally:
        fleet.stop()


def test_keys_and_certificates_at_one_listener(fleet: Fleet) -> None:
    keys = Keys(fleet.folder)
    allow = ["spiffe://prod/**", "host"]
    listener = fleet.listener(identity="server.key", peers={"host": str(keys.client.public)}, tunnel={"allow": allow})
    by_certificate = fleet.connector(listener)
    host, port = listener.address_of("in")
    tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "db"}
    config = {"identity": "client.key", "peers": {"db": str(keys.server.public)}, "tunnels": {"out": tunnel}}
    by_key = fleet._run("by-key", config)
    for proxy in (by_certificate, by_key):
        with connect(proxy.address_of("out")) as sock:
            talk(sock)
    lines = listener.wait_log("connection closed", count=2)
    assert sorted(line["peer"] for line in lines) == ["host", APP]
    assert [("serial" in line) for line in sorted(lines, key=lambda line: line["peer"])] == [False, True]


def test_flags(fleet: Fleet) -> None:
    """The two commands without a file."""
    for leaf, name in ((fleet.server, "db"), (fleet.client, "app")):
        leaf.write(fleet.folder, name)

    def flags(name: str) -> list[str]:
        files = ["--certificate", f"{fleet.folder}/{name}.crt", "--certificate-key", f"{fleet.folder}/{name}-tls.key"]
        return [*files, "--authority", f"prod={fleet.folder}/ca.crt", "--bind", "127.0.0.1:0"]

    with Proxy(["listen", *flags("db"), "--to", fleet.to, "--allow", APP], log=fleet.folder / "in.log").ready() as listener:
        to = listener.addresses[0]
        with Proxy(["connect", *flags("app"), "--to", to, "--peer", DB], log=fleet.folder / "out.log").ready() as connector:
            host, _, port = connector.addresses[0].rpartition(":")
            with connect((host, int(port))) as sock:
                talk(sock)
            assert connector.wait_log("connection closed")[0]["authority"] == "prod"


Case = tuple[Callable[[Fleet], Leaf], str, str]


@pytest.mark.parametrize(
    ("leaf", "reason", "why"),
    [
        (lambda fleet: TestAuthority().issue(APP), "unknown_authority", "no authority of this side issued"),
        (lambda fleet: fleet.authority.issue("spiffe://prod/ns/web/sa/other"), "certificate_not_allowed", "/sa/other (serial"),
        (
            lambda fleet: fleet.authority.issue(APP, purposes=[ExtendedKeyUsageOID.CLIENT_AUTH], kind="p256"),
            "",
            "",
        ),
    ],
    ids=["stranger", "name", "right"],
)
def test_the_listener_refuses(fleet: Fleet, leaf: Callable[[Fleet], Leaf], reason: str, why: str) -> None:
    listener = fleet.listener()
    connector = fleet.connector(listener, leaf=leaf(fleet))
    with connect(connector.address_of("out")) as sock:
        if not reason:
            talk(sock)
            return
        assert end_of(sock) == ("reset", b"")
    line = listener.wait_log("connection refused")[0]
    assert line["reason"] == reason
    assert why in line["why"]
    assert line["remedy"]
    told = connector.wait_log("connection refused")[0]
    assert told["reason"] == "handshake_closed"
    assert "this side's certificate" in told["remedy"]


def test_a_peer_that_is_revoked_by_a_list(fleet: Fleet) -> None:
    fleet.authority.revoke(fleet.folder / "ca.crl", fleet.client)
    listener = fleet.listener(authorities={"prod": {"bundle": "ca.crt", "crl": "ca.crl"}})
    connector = fleet.connector(listener)
    assert end_of_new(connector.address_of("out")) == ("reset", b"")
    assert listener.wait_log("connection refused")[0]["reason"] == "certificate_revoked"


def test_an_authority_that_may_not_vouch_for_a_name(fleet: Fleet) -> None:
    listener = fleet.listener(authorities={"prod": {"bundle": "ca.crt", "names": "dns:*.prod.internal"}})
    connector = fleet.connector(listener)
    assert end_of_new(connector.address_of("out")) == ("reset", b"")
    assert listener.wait_log("connection refused")[0]["reason"] == "certificate_name"


def test_the_connector_refuses_another_host(fleet: Fleet) -> None:
    """A listener with a good certificate for another name gets no certificate and no byte."""
    listener = fleet.listener()
    connector = fleet.connector(listener, tunnel={"peer": "dns:web.prod.internal"})
    assert end_of_new(connector.address_of("out")) == ("reset", b"")
    line = connector.wait_log("connection refused")[0]
    assert line["reason"] == "certificate_not_allowed"
    assert DB in line["why"]
    assert listener.wait_log("connection refused")[0]["reason"] == "handshake_closed"


def test_a_service_for_one_name_alone(fleet: Fleet) -> None:
    services = {"mine": {"to": fleet.to, "allow": APP}, "theirs": {"to": fleet.to, "allow": "spiffe://prod/ns/web/sa/other"}}
    listener = fleet.listener(tunnel={"services": services, "allow": "spiffe://prod/**"})
    connector = fleet.connector(listener, tunnel={"service": "mine"})
    with connect(connector.address_of("out")) as sock:
        talk(sock)
    tunnel = connector.config["tunnels"]["out"] | {"service": "theirs"}
    connector.reload(connector.config | {"tunnels": {"out": tunnel}})
    assert end_of_new(connector.address_of("out")) == ("reset", b"")
    assert listener.wait_log("connection refused")[0]["peer"] == APP


def test_a_target_is_told_the_name(fleet: Fleet) -> None:
    with Target(lambda sock: sock.sendall(sock.recv(4096))) as target:
        listener = fleet.listener(tunnel={"to": target.to, "proxy_protocol": "v2"})
        connector = fleet.connector(listener)
        with connect(connector.address_of("out")) as sock:
            assert APP.encode() in sock.recv(4096)


def test_a_process_without_certificates_stays_lean(fleet: Fleet) -> None:
    """`cryptography.x509` takes memory for the whole life of a process."""
    code = (
        "import sys; import stcp_proxy.process.supervisor, stcp_proxy.session.listen; print('cryptography.x509' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_status_and_metrics_speak_of_certificates(fleet: Fleet) -> None:
    listener = fleet.listener(admin="127.0.0.1:0")
    connector = fleet.connector(listener)
    admin = Admin(listener)
    with connect(connector.address_of("out")) as sock:
        talk(sock)
        status = admin.wait_status(lambda status: status["certificates"][0]["connections"], "a connection by certificate")
        own, root = status["certificates"]
        assert (own["kind"], own["serial"], own["connections"]) == ("certificate", fleet.server.serial, 1)
        assert (root["kind"], root["name"], root["connections"]) == ("authority", "prod", 1)
        assert (status["tunnels"][0]["auth"], status["tunnels"][0]["peers"]) == ("certificates", ["spiffe://prod/ns/*/sa/app"])
        assert status["connections"]["shown"][0]["peer"] == APP
        assert (root["may_go"], root["why"]) == (own["may_go"], "it is the only one") == ("no", root["why"])
        assert [own["issuer"], own["tunnels"]] == ["CN=test authority", ["in"]]
        (peer,) = status["peer_certificates"]
        assert (peer["name"], peer["authority"], peer["serial"], peer["connections"]) == (APP, "prod", fleet.client.serial, 1)
        assert peer["not_after"] == fleet.client.certificate.not_valid_after_utc.timestamp()
        metrics = admin.metrics()
        labels = (("kind", "certificate"), ("name", "(own)"), ("serial", fleet.server.serial))
        end = fleet.server.certificate.not_valid_after_utc.timestamp()
        assert metrics["stcp_certificate_not_after_timestamp_seconds"][labels] == end
        # By the rule, which the file bounds, and not by the name.
        assert ("peer", "spiffe://prod/ns/*/sa/app") in next(iter(metrics["stcp_connections_open"]))


def test_an_overdue_renewal_is_said(fleet: Fleet) -> None:
    fleet.server = fleet.authority.issue(DB, start=-9 * DAY, end=DAY)
    listener = fleet.listener()
    line = listener.wait_log("certificate should have been renewed")[0]
    assert DB in line["certificate"]
    done = forked.run("check", str(listener.file), check=True)
    assert f"warning: this side's certificate: {DB}" in done.stderr


def test_check_shows_names_and_ends(fleet: Fleet) -> None:
    listener = fleet.listener()
    text = forked.run("check", str(listener.file), check=True).stdout
    assert DB in text
    assert "authority prod" in text
    assert fleet.server.serial in text


# -- while they run --------------------------------------------------------------------------------------------------------


def test_a_certificate_is_renewed_under_traffic(fleet: Fleet) -> None:
    """Connections by the old certificate go on, new ones use the new one, and nobody is refused."""
    listener = fleet.listener()
    connector = fleet.connector(listener)
    with busy(connector.address_of("out"), pumping=3) as (pumps, hammer):
        for _ in range(3):
            fleet.server, fleet.client = fleet.authority.issue(DB), fleet.authority.issue(APP)
            fleet.server.write(fleet.folder, "db")
            listener.reload()
            fleet.client.write(fleet.folder, "app")
            connector.reload()
            hammer.go_on()
        pumps.go_on()
    assert not listener.log("connection refused") + connector.log("connection refused")
    assert fleet.client.serial in {line["serial"] for line in listener.log("connection closed")}


def test_an_authority_is_exchanged_under_traffic(fleet: Fleet) -> None:
    """Trust the new one on both sides, renew both certificates, take the old one away: nobody is refused."""
    listener = fleet.listener()
    connector = fleet.connector(listener)
    address, new = connector.address_of("out"), TestAuthority("p256", "new authority")
    lasting = Pumping(address, 1)
    try:
        with busy(address, pumping=0) as (_, hammer):
            fleet.authority.bundle(fleet.folder / "ca.crt", new)
            listener.reload()
            connector.reload()
            new.issue(DB).write(fleet.folder, "db")
            listener.reload()
            hammer.go_on()
            new.issue(APP).write(fleet.folder, "app")
            connector.reload()
            hammer.go_on()
        with busy(address, pumping=3) as (pumps, hammer):
            lasting.go_on()  # its authority is still trusted
            new.bundle(fleet.folder / "ca.crt")
            listener.reload()
            wait_for(lambda: lasting.failures, words="the connection by the old authority ends")
            connector.reload()
            hammer.go_on()
            pumps.go_on()
    finally:
        with contextlib.suppress(AssertionError):
            lasting.finish()
    assert not listener.log("connection refused") + connector.log("connection refused")
    assert listener.log("certificate revoked: its connections end", peers=[APP], connections=1)


def test_status_says_when_an_authority_can_go(fleet: Fleet) -> None:
    """With two worker processes: each sees a part of the handshakes."""
    new = TestAuthority("p256", "new authority")
    fleet.authority.bundle(fleet.folder / "ca.crt", new)
    listener = fleet.listener(admin="127.0.0.1:0", workers=2)
    connector = fleet.connector(listener)
    admin = Admin(listener)

    def says(status: Config) -> dict[str, str]:
        return {each["subject"]: each["may_go"] for each in status["certificates"] if each["kind"] == "authority"}

    with connect(connector.address_of("out")) as sock:
        talk(sock)
        admin.wait_status(lambda status: says(status) == {"CN=test authority": "no", "CN=new authority": "unknown"}, "in use")
    admin.wait_status(lambda status: not status["peer_certificates"], "the connection has ended")
    assert says(admin.status())["CN=test authority"] == "no"
    new.issue(APP).write(fleet.folder, "app")
    connector.reload()
    with connect(connector.address_of("out")) as sock:
        talk(sock)
        admin.wait_status(lambda status: says(status) == {"CN=test authority": "yes", "CN=new authority": "no"}, "gone over")


def revoked_by_serial(fleet: Fleet) -> Config:
    (fleet.folder / "revoked.txt").write_text(f"# stolen\nserial:prod/{fleet.client.serial}\n")
    return {"revoked": "revoked.txt"}


def revoked_by_key(fleet: Fleet) -> Config:
    key = fleet.client.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (fleet.folder / "revoked.txt").write_text(f"spki:{base64.b64encode(key).decode()}\n")
    return {"revoked": "revoked.txt"}


def revoked_by_list(fleet: Fleet) -> Config:
    fleet.authority.revoke(fleet.folder / "ca.crl", fleet.client)
    return {"authorities": {"prod": {"bundle": "ca.crt", "crl": "ca.crl"}}}


def no_longer_trusted(fleet: Fleet) -> Config:
    return {"authorities": {"other": "other.crt"}}


@pytest.mark.parametrize("change", [revoked_by_serial, revoked_by_key, revoked_by_list, no_longer_trusted])
def test_live_connections_end_with_their_certificate(fleet: Fleet, change: Callable[[Fleet], Config]) -> None:
    TestAuthority().bundle(fleet.folder / "other.crt")
    listener = fleet.listener(authorities={"prod": "ca.crt", "other": "other.crt"})
    connector = fleet.connector(listener)
    with connect(connector.address_of("out")) as sock:
        talk(sock)
        listener.reload(listener.config | change(fleet))
        assert end_of(sock) == ("reset", b"")
    assert "key revoked" in connector.ended(reason="peer_reset")[0]["why"]
    assert end_of_new(connector.address_of("out")) == ("reset", b"")


def test_a_rule_that_goes_takes_its_connections_along(fleet: Fleet) -> None:
    listener = fleet.listener(tunnel={"allow": [APP, "spiffe://prod/ns/web/sa/other"]})
    connector = fleet.connector(listener)
    with connect(connector.address_of("out")) as sock:
        talk(sock)
        tunnel = listener.config["tunnels"]["in"] | {"allow": "spiffe://prod/ns/web/sa/other"}
        listener.reload(listener.config | {"tunnels": {"in": tunnel}})
        assert end_of(sock) == ("reset", b"")


def test_a_revoked_key_of_a_peer_without_certificate(fleet: Fleet) -> None:
    keys = Keys(fleet.folder)
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": fleet.to, "allow": "app"}
    config = {"identity": "server.key", "peers": {"app": str(keys.client.public)}, "tunnels": {"in": tunnel}}
    listener = fleet._run("listener", config)
    host, port = listener.address_of("in")
    tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": str(keys.server.public)}
    connector = fleet._run("connector", {"identity": "client.key", "tunnels": {"out": tunnel}})
    with connect(connector.address_of("out")) as sock:
        talk(sock)
        (fleet.folder / "revoked.txt").write_text(f"{keys.client.public}\n")
        listener.reload(config | {"revoked": "revoked.txt"})
        assert end_of(sock) == ("reset", b"")
    assert end_of_new(connector.address_of("out")) == ("reset", b"")
    assert listener.wait_log("connection refused")[0]["reason"] == "unknown_peer"
    (fleet.folder / "revoked.txt").write_text(f"{keys.server.public}\n")
    connector.reload(connector.config | {"revoked": "revoked.txt"})
    assert end_of_new(connector.address_of("out")) == ("reset", b"")
    assert connector.wait_log("connection refused", reason="key_revoked")
