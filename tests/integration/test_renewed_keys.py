"""A key file that is replaced in place refuses no new connection: not one in its handshake, not one that comes meanwhile."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.certificates import TestAuthority
from harness.files import FileProxy
from harness.proxies import Keys
from harness.sockets import TIMEOUT, Target, connect, end_of, talk
from harness.traffic import busy


class Gate:
    """A relay in front of a listener. While it is shut, it holds back what the listener says, beginning with message 2.

    Attributes:
        address: where it listens.
        holds: set once the listener has said something while the gate was shut.
    """

    def __init__(self, to: tuple[str, int]) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._open, self.holds = threading.Event(), threading.Event()
        self._open.set()
        self._threads: list[threading.Thread] = []
        self._socks = [self._listener]
        self._start(self._accept)

    def _start(self, target: Any, *args: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=args))
        self._threads[-1].start()

    def shut(self) -> None:
        self.holds.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        """End everything. Close the proxies first."""
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
        for sock in self._socks:
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                left, _ = self._listener.accept()
                right = connect(self._to)
                self._socks += [left, right]
                self._start(self._pass, left, right, False)
                self._start(self._pass, right, left, True)

    def _pass(self, source: socket.socket, sink: socket.socket, waits: bool) -> None:
        with contextlib.suppress(OSError):
            source.settimeout(TIMEOUT)
            while data := source.recv(1 << 16):
                if waits and not self._open.is_set():
                    self.holds.set()
                    self._open.wait(TIMEOUT)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Hosts:
    """Two hosts that know both keys of each other, and each use the first one. A gate stands between them."""

    def __init__(self, folder: Path, to: str, **settings: Any) -> None:
        self.folder, self.keys = folder, Keys(folder)
        new_client, new_server = self.keys.add("client-2"), self.keys.add("server-2")
        app = [str(self.keys.client.public), str(new_client.public)]
        db = [str(self.keys.server.public), str(new_server.public)]
        tunnel = {"mode": "listen", "handshake_timeout": 60, "bind": "127.0.0.1:0", "to": to, "allow": "app"}
        self.db = FileProxy(folder, "db", {"identity": "server.key", "peers": {"app": app}, "tunnels": {"in": tunnel}} | settings)
        self.gate = Gate(self.db.address_of("in"))
        host, port = self.gate.address
        tunnel = {"mode": "connect", "handshake_timeout": 60, "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "db"}
        self.app = FileProxy(
            folder, "app", {"identity": "client.key", "peers": {"db": db}, "tunnels": {"out": tunnel}} | settings
        )
        self.address = self.app.address_of("out")

    def replace(self, name: str) -> FileProxy:
        """Put the next key of a host in the place of its first one. Returns the proxy that has to read it."""
        (self.folder / f"{name}-2.key").replace(self.folder / f"{name}.key")
        return self.app if name == "client" else self.db

    def refused(self) -> list[dict[str, Any]]:
        return self.app.log("connection refused")

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()
        self.gate.close()


@pytest.fixture
def hosts(tmp_path: Path, echo: Target) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path, echo.to)
    yield hosts
    hosts.stop()


@pytest.mark.parametrize("speaks_first", [True, False])
@pytest.mark.parametrize("name", ["client", "server"])
def test_connection_in_its_handshake_is_tried_again(hosts: Hosts, name: str, speaks_first: bool) -> None:
    """Message 2 is on its way while the key is replaced, and `revoke_grace` is 0."""
    hosts.gate.shut()
    with connect(hosts.address) as client:
        if speaks_first:
            client.sendall(b"word")
        assert hosts.gate.holds.wait(TIMEOUT)
        hosts.replace(name).reload()
        hosts.gate.open()
        if not speaks_first:
            client.sendall(b"word")
        client.settimeout(TIMEOUT)
        assert client.recv(4, socket.MSG_WAITALL) == b"word"
        talk(client)
    assert hosts.refused() == []


def test_key_that_is_not_known_to_the_peer_is_refused(hosts: Hosts) -> None:
    """The second handshake is one of the new rule, and nothing else is tried."""
    hosts.gate.shut()
    with connect(hosts.address) as client:
        assert hosts.gate.holds.wait(TIMEOUT)
        hosts.keys.add("other")
        (hosts.folder / "other.key").replace(hosts.folder / "client.key")
        hosts.app.reload()
        hosts.gate.open()
        assert end_of(client) == ("reset", b"")
    assert hosts.app.wait_log("connection refused")[0]["reason"] == "handshake_closed"


def test_peer_that_is_revoked_in_the_handshake_is_refused(hosts: Hosts) -> None:
    """The first refusal is the one that is told: the second handshake only says that the peer closed."""
    hosts.gate.shut()
    with connect(hosts.address) as client:
        assert hosts.gate.holds.wait(TIMEOUT)
        hosts.db.reload(hosts.db.config | {"peers": {"app": str(hosts.keys.add("third").public)}})
        hosts.gate.open()
        assert end_of(client) == ("reset", b"")
    assert "revoked" in hosts.app.wait_log("connection refused")[0]["why"]


def test_tunnel_that_is_removed_in_the_handshake(hosts: Hosts) -> None:
    """Its connection ends where the file no longer names its peer."""
    hosts.gate.shut()
    with connect(hosts.address) as client:
        assert hosts.gate.holds.wait(TIMEOUT)
        tunnel = hosts.app.config["tunnels"]["out"] | {"peer": str(hosts.keys.add("third").public), "bind": "127.0.0.1:0"}
        hosts.app.reload(hosts.app.config | {"peers": {}, "tunnels": {"else": tunnel}})
        hosts.gate.open()
        assert end_of(client) == ("reset", b"")
    assert hosts.app.wait_log("connection refused")[0]["reason"] == "key_revoked"


def test_keys_are_replaced_in_place_under_traffic(tmp_path: Path, echo: Target) -> None:
    """Both hosts watch their files, and give live connections a grace: no connection is lost, none is refused."""
    hosts = Hosts(tmp_path, echo.to, watch="100ms", revoke_grace="60s")
    try:
        with busy(hosts.address, pumping=5) as (pumps, hammer):
            for name in ("client", "server"):
                hosts.replace(name).wait_log("reloaded")
                pumps.go_on()
                hammer.go_on(30)
        assert hosts.refused() == []
        assert hosts.app.log("connection closed", reason="peer_reset") == []
    finally:
        hosts.stop()


class Certified:
    """Two hosts with certificates of one authority, which both trust beside the next one. A gate stands between them."""

    def __init__(self, folder: Path, to: str) -> None:
        self.folder, self.authority, self.next = folder, TestAuthority(), TestAuthority(name="next")
        self.authority.bundle(folder / "ca.crt")
        self.next.bundle(folder / "next.crt")
        tunnel = {"mode": "listen", "handshake_timeout": 60, "bind": "127.0.0.1:0", "to": to, "allow": "dns:app"}
        self.db = FileProxy(folder, "db", self._config("db", {"in": tunnel}))
        self.gate = Gate(self.db.address_of("in"))
        host, port = self.gate.address
        tunnel = {
            "mode": "connect", "handshake_timeout": 60, "bind": "127.0.0.1:0", "to": f"{host}:{port}", "peer": "dns:db",
        }  # fmt: skip
        self.app = FileProxy(folder, "app", self._config("app", {"out": tunnel}))
        self.address = self.app.address_of("out")

    def _config(self, name: str, tunnels: dict[str, Any]) -> dict[str, Any]:
        certificate = self.authority.issue(f"dns:{name}").write(self.folder, name)
        return {"certificate": certificate, "authorities": {"prod": "ca.crt", "next": "next.crt"}, "tunnels": tunnels}

    def renew(self, name: str, authority: TestAuthority) -> None:
        """Replace a host's certificate and its key in place, and reload."""
        authority.issue(f"dns:{name}").write(self.folder, name)
        (self.app if name == "app" else self.db).reload()

    def stop(self) -> None:
        self.app.stop()
        self.db.stop()
        self.gate.close()


@pytest.fixture
def certified(tmp_path: Path, echo: Target) -> Iterator[Certified]:
    hosts = Certified(tmp_path, echo.to)
    yield hosts
    hosts.stop()


@pytest.mark.parametrize("name", ["app", "db"])
def test_certificate_that_is_replaced_in_the_handshake(certified: Certified, name: str) -> None:
    """The former certificate is still good: the handshake goes on, and the connection stays."""
    certified.gate.shut()
    with connect(certified.address) as client:
        assert certified.gate.holds.wait(TIMEOUT)
        certified.renew(name, certified.authority)
        certified.gate.open()
        talk(client)
        with connect(certified.address) as other:
            talk(other)
        talk(client)
    assert certified.app.log("connection refused") == certified.db.log("connection refused") == []


def test_authority_that_is_exchanged_in_the_handshake(certified: Certified) -> None:
    """The listener refuses the former certificate, dials nothing, and the connection comes again with the new one."""
    certified.gate.shut()
    with connect(certified.address) as client:
        client.sendall(b"word")
        assert certified.gate.holds.wait(TIMEOUT)
        certified.renew("app", certified.next)
        certified.db.reload(certified.db.config | {"authorities": {"next": "next.crt"}})
        certified.gate.open()
        client.settimeout(TIMEOUT)
        assert client.recv(4, socket.MSG_WAITALL) == b"word"
    assert certified.app.log("connection refused") == []
    assert certified.db.wait_log("connection refused")[0]["reason"] == "key_revoked"
