"""SIGHUP: the file is read again, whole or not at all, and what did not change is not touched."""

from __future__ import annotations

import copy
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import forked
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import Target, connect, end_of, free_port, read_all, read_exactly
from harness.traffic import busy

from stcp_proxy.relay.engine_choice import describe_kernel

Config = dict[str, Any]


class Rig:
    """A listening and a connecting proxy that both run from files, and a second target that answers in capitals."""

    def __init__(self, folder: Path, target: Target, loud: Target) -> None:
        self.keys = Keys(folder)
        self.target, self.loud = target, loud
        self.listen = FileProxy(folder, "listen", self.listen_config())
        host, port = self.listen.address_of("in")
        self.connect = FileProxy(folder, "connect", self.connect_config(f"{host}:{port}"))

    def listen_config(self) -> Config:
        return {
            "identity": "server.key",
            "peers": {"app": str(self.keys.client.public)},
            "drain": "20s",
            "tunnels": {"in": {"mode": "listen", "bind": "127.0.0.1:0", "to": self.target.to, "allow": "app"}},
        }

    def connect_config(self, to: str) -> Config:
        return {
            "identity": "client.key",
            "peers": {"db": str(self.keys.server.public)},
            "tunnels": {"out": {"mode": "connect", "bind": "127.0.0.1:0", "to": to, "peer": "db"}},
        }

    @property
    def address(self) -> tuple[str, int]:
        return self.connect.address_of("out")

    def changed(self, side: FileProxy, **settings: Any) -> Config:
        """The side's file with settings of its one tunnel changed."""
        config = copy.deepcopy(side.config)
        (tunnel,) = config["tunnels"].values()
        tunnel.update(settings)
        return config

    def stop(self) -> None:
        self.connect.stop()
        self.listen.stop()


def capitals(sock: socket.socket) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data.upper())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Target() as target, Target(capitals) as loud:
        rig = Rig(tmp_path, target, loud)
        yield rig
        rig.stop()


def says(address: tuple[str, int] | str, word: bytes = b"word") -> bytes:
    with connect(address) as client:
        client.sendall(word)
        return read_exactly(client, len(word))


def test_twenty_reloads_under_ten_connections(rig: Rig) -> None:
    """No change, changed settings, other tunnels coming and going: byte-exact, none dropped, and nobody new refused."""
    other = {"mode": "listen", "bind": "127.0.0.1:0", "to": rig.target.to, "allow": "app"}
    with busy(rig.address) as (pumps, hammer):
        for round_ in range(20):
            side = (rig.listen, rig.connect)[round_ % 2]
            config = copy.deepcopy(side.config)
            name = "in" if side is rig.listen else "out"
            kind = round_ // 2 % 4
            if kind == 1:
                config["tunnels"][name] |= {"idle_timeout": 600 + round_, "max_connections": 500 + round_, "max_handshakes": 90}
            elif kind == 2 and side is rig.listen:
                config["tunnels"][f"other{round_}"] = dict(other)
            elif kind == 3:
                config["tunnels"] = {name: config["tunnels"][name]}
            line = side.reload(config)
            if kind == 0:
                assert "changed" not in line
                assert line["untouched"] == list(config["tunnels"])
            elif kind == 1:
                assert set(line["changed"][name]) <= {"idle_timeout", "max_connections", "max_handshakes"}
            pumps.go_on()
            hammer.go_on()
    for side in (rig.listen, rig.connect):
        assert side.log("listening", tunnel="in" if side is rig.listen else "out") == side.log("listening")[:1]
        assert not side.log("connection refused")
        assert side.stop() == 0
        assert not side.log(level="error")


def test_changed_tunnel_serves_old_connections_as_before(rig: Rig) -> None:
    with connect(rig.address) as old:
        old.sendall(b"before")
        assert read_exactly(old, 6) == b"before"
        line = rig.listen.reload(rig.changed(rig.listen, to=rig.loud.to))
        assert line["changed"] == {"in": {"to": [rig.target.to, rig.loud.to]}}
        old.sendall(b"still")
        assert read_exactly(old, 5) == b"still"
        assert says(rig.address) == b"WORD"
        old.shutdown(socket.SHUT_WR)
        assert read_all(old) == b""


def test_removed_tunnel_drains_and_its_port_is_free(rig: Rig) -> None:
    """A tunnel of another name and kind gets the port in the same reload."""
    address = rig.address
    tunnel = rig.connect.config["tunnels"]["out"]
    with connect(address) as old:
        old.sendall(b"before")
        assert read_exactly(old, 6) == b"before"
        config = copy.deepcopy(rig.connect.config)
        config["tunnels"] = {"new": dict(tunnel, bind=f"127.0.0.1:{address[1]}", idle_timeout="1h")}
        line = rig.connect.reload(config)
        assert (line["added"], line["removed"]) == (["new"], ["out"])
        assert says(address) == b"word"
        assert rig.connect.ended(tunnel="new")
        old.sendall(b"after")
        assert read_exactly(old, 5) == b"after"
        config["tunnels"]["new"]["bind"] = f"127.0.0.1:{free_port()}"
        rig.connect.reload(config)
        with socket.socket() as sock:  # SO_REUSEADDR, as any server: only a listener would be in the way
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen()
        old.shutdown(socket.SHUT_WR)
        assert read_all(old) == b""
    assert rig.connect.ended(tunnel="out")[0]["reason"] == "finished"
    assert rig.connect.stop() == 0


def test_removed_tunnel_is_cut_off_after_the_drain(rig: Rig) -> None:
    config = copy.deepcopy(rig.listen.config)
    config["tunnels"] = {"else": dict(config["tunnels"]["in"], bind=f"127.0.0.1:{free_port()}")}
    config["drain"] = "200ms"
    with connect(rig.address) as old:
        old.sendall(b"before")
        assert read_exactly(old, 6) == b"before"
        rig.listen.reload(config)
        assert end_of(old) == ("reset", b"")
    assert rig.listen.ended(tunnel="in")[0]["reason"] == "aborted"
    assert "shutting down" in rig.connect.ended()[0]["why"]
    with pytest.raises(ConnectionRefusedError):
        connect(rig.listen.address_of("in"))
    assert rig.listen.status is None


def test_ports_change_hands(rig: Rig) -> None:
    """Two tunnels exchange their addresses, and one grows from one interface to all."""
    first, second, third = free_port(), free_port(), free_port()
    config = copy.deepcopy(rig.listen.config)
    base = config["tunnels"]["in"]
    one, two = {"to": rig.target.to}, {"to": rig.loud.to}
    config["tunnels"] |= {
        "one": base | one | {"bind": f"127.0.0.1:{first}"},
        "two": base | two | {"bind": f"127.0.0.1:{second}"},
        "three": base | {"bind": f"127.0.0.1:{third}"},
    }
    rig.listen.reload(config)
    swapped = copy.deepcopy(config)
    swapped["tunnels"]["one"]["bind"], swapped["tunnels"]["two"]["bind"] = f"127.0.0.1:{second}", f"127.0.0.1:{first}"
    swapped["tunnels"]["three"]["bind"] = f"0.0.0.0:{third}"
    rig.listen.reload(swapped)
    for port, answer in ((first, b"WORD"), (second, b"word"), (third, b"word")):
        rig.connect.reload(rig.changed(rig.connect, to=f"127.0.0.1:{port}"))
        assert says(rig.address) == answer
    rig.listen.reload(config)
    rig.connect.reload(rig.changed(rig.connect, to=f"127.0.0.1:{third}"))
    assert says(rig.address) == b"word"


BAD = ["syntax", "key", "address", "workers", "gone", *(["engine"] if "not available" in describe_kernel() else [])]


@pytest.mark.parametrize("what", BAD)
def test_bad_file_changes_nothing(rig: Rig, what: str, tmp_path: Path) -> None:
    """Whatever it is that cannot be, everything goes on as before: also the half of the file that could be."""
    config = copy.deepcopy(rig.listen.config)
    config["tunnels"]["in"]["to"] = rig.loud.to
    config["tunnels"]["fine"] = dict(config["tunnels"]["in"], bind=f"127.0.0.1:{(fine := free_port())}")
    with Target() as taken:
        config["tunnels"]["more"] = more = dict(config["tunnels"]["in"], bind=taken.to)
        words = "another program is listening there"
        if what != "address":
            more["bind"] = "127.0.0.1:0"
        if what == "key":
            more["identity"], words = "no.key", "no.key does not exist"
        elif what == "engine":
            more["bind"], more["engine"], words = f"127.0.0.1:{free_port()}", "kernel", "engine kernel"
        elif what == "workers":
            config["workers"], words = 2, "only a new start changes the number of processes"
        elif what == "syntax":
            more["targets"], words = "x", "there is no such key"
        with connect(rig.address) as old:
            old.sendall(b"before")
            assert read_exactly(old, 6) == b"before"
            if what == "gone":
                rig.listen.file.unlink()
                line, words = rig.listen.reload_refused(), "does not exist"
            else:
                line = rig.listen.reload_refused(config)
            assert words in line["why"]
            assert says(rig.address) == b"word"
            old.sendall(b"still")
            assert read_exactly(old, 5) == b"still"
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", fine))
        if what == "gone":
            return
    if what == "address":  # the address is free now: the same file is good
        assert rig.listen.reload()["added"] == ["fine", "more"]
        assert says(rig.address) == b"WORD"


def test_limit_lowered_below_what_is_there(rig: Rig) -> None:
    clients = [connect(rig.address) for _ in range(4)]
    for client in clients:
        client.sendall(b"word")
        assert read_exactly(client, 4) == b"word"
    rig.connect.reload(rig.changed(rig.connect, max_connections=2))
    with connect(rig.address) as waiting:
        waiting.sendall(b"word")
        rig.connect.wait_log("limit reached: new connections wait", limit="max_connections", value=2)
        for client in clients[:3]:
            client.sendall(b"more")
            assert read_exactly(client, 4) == b"more"
            client.close()
        assert read_exactly(waiting, 4) == b"word"
    clients[3].close()


def test_engine_and_log_level(rig: Rig) -> None:
    """Both work for what comes after."""
    config = rig.changed(rig.listen, engine="python")
    config["log"] = {"level": "warning"}
    rig.listen.write(config)
    rig.listen.signal(signal.SIGHUP)
    wait_for(lambda: rig.listen.log("engine", choice="python"), words="the engine is there")
    assert says(rig.address) == b"word"
    rig.connect.ended()
    assert not rig.listen.log("connection closed")
    config["log"] = {"level": "debug", "format": "text"}
    rig.listen.write(config)
    rig.listen.signal(signal.SIGHUP)
    wait_for(lambda: "reloaded" in rig.listen.text(), words="the level is back")
    assert says(rig.address) == b"word"
    wait_for(lambda: "connection closed" in rig.listen.text(), words="connections are logged again, as text")


def test_signals_that_come_together(rig: Rig) -> None:
    for _ in range(50):
        rig.listen.signal(signal.SIGHUP)
    rig.listen.reload()
    assert says(rig.address) == b"word"
    assert len(rig.listen.log("reloaded")) <= 51


def test_stop_is_not_held_up(rig: Rig) -> None:
    """SIGHUP during the drain is refused in words, and is not the second signal."""
    with connect(rig.address) as client:
        client.sendall(b"word")
        assert read_exactly(client, 4) == b"word"
        rig.listen.signal(signal.SIGTERM)
        rig.listen.wait_log("stopping")
        rig.listen.signal(signal.SIGHUP)
        rig.listen.wait_log("the file is not read again: this proxy is stopping")
        client.sendall(b"more")
        assert read_exactly(client, 4) == b"more"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert rig.listen.wait() == 0


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments)


def test_command(rig: Rig, tmp_path: Path) -> None:
    """`stcp-proxy reload`: shows what would change, changes it, and says why not."""
    admin = f"127.0.0.1:{free_port()}"
    config = rig.listen.config | {"admin": admin}
    with FileProxy(tmp_path, "asked", config) as proxy:
        assert isinstance(proxy, FileProxy)
        proxy.wait_log("admin address")
        same = command("reload", str(proxy.file))
        assert (same.returncode, same.stdout) == (0, "= untouched: in\n"), same.stderr
        changed = copy.deepcopy(config)
        changed["tunnels"]["in"]["to"] = rig.loud.to
        proxy.write(changed)
        for flags in (["--check", str(proxy.file)], ["--check", "--admin", admin], [str(proxy.file)]):
            shown = command("reload", *flags)
            assert (shown.returncode, shown.stdout) == (0, f"~ tunnel in: to {rig.target.to} -> {rig.loud.to}\n"), shown.stderr
        assert len(proxy.log("reloaded")) == 2
        changed["tunnels"]["in"]["bnid"] = 1
        proxy.write(changed)
        for flags in (["--check"], []):
            refused = command("reload", *flags, "--admin", admin)
            assert refused.returncode == 1
            assert "everything goes on as before" in refused.stderr
            assert "tunnels.in.bnid: there is no such key; did you mean 'bind'?" in refused.stderr
    gone = command("reload", "--admin", admin)
    assert (gone.returncode, gone.stdout) == (1, "")
