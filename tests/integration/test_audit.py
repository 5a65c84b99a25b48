"""Audit mode of an access rule, between real processes: who gets in, who notices, and how it ends."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from harness.admin import Admin
from harness.certificates import TestAuthority
from harness.files import FileProxy
from harness.peer import Peer, message_1
from harness.proxies import Keys
from harness.sockets import Target, connect, end_of, read_exactly

from stcp_proxy.errors import Code
from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.opening import Opening, decode_reason
from stcp_proxy.protocol.wire import FrameType

DATE = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)).isoformat()
ADMITTED = "peer admitted by audit"


class AsPeer(Keys):
    """The same listening side, seen by another peer."""

    def __init__(self, keys: Keys, key: PrivateKey) -> None:
        self.psk, self.server, self.client = False, keys.server, key


def listener(keys: Keys, to: str, **whole: Any) -> FileProxy:
    tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app", "allow_mode": {"audit": DATE}}
    tunnel["services"] = {"closed": {"to": to, "allow": "other"}}
    tunnel |= whole.pop("tunnel", {})
    peers = {"app": str(keys.client.public), "other": str(keys.stranger.public)}
    config = {"identity": "server.key", "peers": peers, "admin": "127.0.0.1:0", "tunnels": {"in": tunnel}}
    return FileProxy(keys.folder, "listener", config | whole)


def kinds(status: dict[str, Any]) -> list[str]:
    """The kinds of faults that last."""
    return [fault["kind"] for fault in status["verdict"]["faults"] if fault["until"] is None]


def notices(admin: Admin, reason: str) -> None:
    """The admin address tells of one connection that the audit admitted."""
    status = admin.wait_status(lambda found: "audit" in kinds(found), "the fault is listed")
    assert status["tunnels"][0]["audited"] == {reason: 1}
    assert status["tunnels"][0]["state"] == "audit"
    assert "only audits its access rule" in status["verdict"]["headline"]
    assert f'stcp_audited_connections_total{{reason="{reason}",tunnel="in"}} 1.0' in admin.ask("/metrics")[1]


def test_unknown_keys(tmp_path: Path, echo: Target) -> None:
    keys = Keys(tmp_path)
    unknown, revoked = AsPeer(keys, keys.add("unknown")), AsPeer(keys, keys.add("revoked"))
    (tmp_path / "revoked.txt").write_text(f"{revoked.client.public}\n")
    proxy = listener(keys, echo.to, revoked="revoked.txt")
    try:
        address = proxy.address_of("in")
        assert proxy.wait_log("access rule only audits", tunnel="in")
        with connect(address) as sock, connect(address) as known, connect(address) as gone, connect(address) as service:
            Peer(sock, unknown).open()
            (line,) = proxy.wait_log(ADMITTED)
            assert (line["level"], line["reason"], line["peer"]) == ("warning", "unknown_peer", str(unknown.client.public))
            app = Peer(known, keys)
            app.open()
            gone.sendall(message_1(revoked))
            assert end_of(gone)[1] == b""
            assert proxy.refused(reason="unknown_peer")[0]["key"] == str(revoked.client.public)
            closed = Peer(service, unknown)
            closed.send(FrameType.OPEN, Opening(service="closed").encode())
            kind, content = closed.receive() or (None, b"")
            assert (kind, decode_reason(content)[0]) == (FrameType.REJECT, Code.UNKNOWN_SERVICE)
            notices(Admin(proxy), "unknown_peer")
            tunnel = proxy.config["tunnels"]["in"] | {"allow_mode": "enforce"}
            proxy.reload(proxy.config | {"tunnels": {"in": tunnel}, "revoke_grace": "0s"})
            proxy.wait_log("key revoked: its connections end", peers=[str(unknown.client.public)])
            assert "key revoked" in proxy.ended(peer=str(unknown.client.public))[0]["why"]
            assert not proxy.log("connection closed", peer="app")
        with connect(address) as sock:
            sock.sendall(message_1(unknown))
            assert end_of(sock)[1] == b""
        proxy.refused(reason="unknown_peer", key=str(unknown.client.public))
        status = Admin(proxy).wait_status(lambda found: "audit" not in kinds(found), "the fault is over")
        assert status["tunnels"][0]["audit_until"] is None
    finally:
        proxy.stop()


def test_a_certificate_whose_name_no_rule_admits(tmp_path: Path, echo: Target) -> None:
    keys, authority = Keys(tmp_path), TestAuthority()
    authority.bundle(tmp_path / "ca.crt")
    whole = {"certificate": authority.issue("dns:db").write(tmp_path, "db"), "authorities": {"prod": "ca.crt"}}
    proxy = listener(keys, echo.to, tunnel={"allow": ["app", "dns:app"]}, **whole)
    host, port = proxy.address_of("in")
    tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "dns:db"}
    leaf = authority.issue("dns:new").write(tmp_path, "new")
    config = {"certificate": leaf, "authorities": {"prod": "ca.crt"}, "tunnels": {"out": tunnel}}
    connector = FileProxy(tmp_path, "connector", config)
    try:
        with connect(connector.address_of("out")) as sock:
            sock.sendall(b"word")
            assert read_exactly(sock, 4) == b"word"
            (line,) = proxy.wait_log(ADMITTED)
            assert (line["reason"], line["peer"], line["authority"]) == ("certificate_not_allowed", "dns:new", "prod")
            notices(Admin(proxy), "certificate_not_allowed")
    finally:
        connector.stop()
        proxy.stop()
