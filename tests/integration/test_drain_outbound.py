"""`drain_outbound: keep`: an application that shuts down behind its sidecar still gets new connections to its database."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import Target, connect, read_all, talk


class Sidecar:
    """One proxy with both kinds of tunnels, beside one that stands for the rest of the world."""

    def __init__(self, folder: Path, to: str) -> None:
        keys = Keys(folder)
        inbound = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": str(keys.client.public)}
        world = {"identity": "server.key", "tunnels": {"database": dict(inbound)}}
        self.world = FileProxy(folder, "world", world)
        host, port = self.world.address_of("database")
        self.inbound = inbound | {"identity": "server.key"}
        self.outbound = {
            "mode": "connect",
            "bind": "127.0.0.1:0",
            "to": f"{host}:{port}",
            "peer": str(keys.server.public),
            "identity": "client.key",
        }
        self.folder = folder
        self.proxies: list[FileProxy] = [self.world]

    def start(self, *, drain: str = "60s", **tunnels: dict[str, Any]) -> FileProxy:
        proxy = FileProxy(self.folder, "sidecar", {"drain": drain, "drain_outbound": "keep", "tunnels": tunnels})
        self.proxies.append(proxy)
        return proxy

    def caller(self, sidecar: FileProxy) -> tuple[str, int]:
        """Where a client reaches the sidecar's application."""
        host, port = sidecar.address_of("in")
        out = {"out": self.outbound | {"to": f"{host}:{port}"}}
        self.proxies.append(caller := FileProxy(self.folder, "caller", {"tunnels": out}))
        return caller.address_of("out")

    def stop(self) -> None:
        for proxy in reversed(self.proxies):
            proxy.stop()


@pytest.fixture
def rig(tmp_path: Path, echo: Target) -> Iterator[Sidecar]:
    rig = Sidecar(tmp_path, echo.to)
    yield rig
    rig.stop()


def refuses(address: tuple[str, int]) -> bool:
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    return False


def test_until_the_listen_side_is_idle(rig: Sidecar) -> None:
    sidecar = rig.start(**{"in": rig.inbound, "out": rig.outbound})
    address = rig.caller(sidecar)
    with connect(address) as client:
        talk(client)
        sidecar.signal(signal.SIGTERM)
        sidecar.wait_log("stopping")
        assert refuses(sidecar.address_of("in"))
        for _ in range(3):
            with connect(sidecar.address_of("out")) as database:
                talk(database)
                talk(client)
        with connect(sidecar.address_of("out")) as database:
            talk(database)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
            wait_for(lambda: refuses(sidecar.address_of("out")), words="nothing new is taken any more")
            talk(database)  # what is open may finish
            assert sidecar.status is None
    assert sidecar.wait() == 0


def test_without_a_listen_side_until_the_end_of_the_drain(rig: Sidecar) -> None:
    sidecar = rig.start(drain="2s", out=rig.outbound)
    sidecar.signal(signal.SIGTERM)
    sidecar.wait_log("stopping")
    with connect(sidecar.address_of("out")) as database:
        talk(database)
    assert sidecar.wait() == 0
    assert refuses(sidecar.address_of("out"))


def test_second_signal_ends_it(rig: Sidecar) -> None:
    sidecar = rig.start(out=rig.outbound)
    sidecar.signal(signal.SIGTERM)
    sidecar.wait_log("stopping")
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait(20) == 0
    assert refuses(sidecar.address_of("out"))
