"""Reload with several workers: in all of them or in none."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import resource
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import forked
from harness.admin import Admin
from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys
from harness.sockets import TIMEOUT, Target, connect, end_of, end_of_new, free_port, read_all, read_exactly, talk
from harness.traffic import busy

Config = dict[str, Any]
_IN_CLOSE_NOWRITE = 0x10
_IN_OPEN = 0x20
_libc = ctypes.CDLL(None, use_errno=True)
MANY = 24
"""New connections, of which each of two workers gets at least one: all but once in eight million times."""


class Rig:
    """A listening proxy with two workers, and a connecting one without."""

    def __init__(self, folder: Path, to: str) -> None:
        self.keys = Keys(folder)
        self.to = to
        tunnel = {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app"}
        app = {"app": str(self.keys.client.public)}
        many = {"workers": 2, "drain": "20s", "identity": "server.key"}
        many["sandbox"] = "off"  # a reload makes a unix socket where there was none: in the sandbox that takes a restart
        self.listen = FileProxy(folder, "listen", many | {"peers": app, "tunnels": {"in": tunnel}, "admin": "127.0.0.1:0"})
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": "{}:{}".format(*self.listen.address_of("in")), "peer": "db"}
        tunnel["keep"] = "off"  # each connection meets either worker
        db = {"db": str(self.keys.server.public)}
        self.connect = FileProxy(folder, "connect", {"identity": "client.key", "peers": db, "tunnels": {"out": tunnel}})

    @property
    def address(self) -> tuple[str, int]:
        return self.connect.address_of("out")

    def workers(self) -> list[int]:
        pid = self.listen.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def changed(self, **settings: Any) -> Config:
        config = copy.deepcopy(self.listen.config)
        config["tunnels"]["in"].update(settings)
        return config

    def with_more(self, *ports: int, **settings: Any) -> Config:
        """The file with further tunnels, on these ports."""
        config = copy.deepcopy(self.listen.config)
        for port in ports:
            config["tunnels"][f"more{port}"] = config["tunnels"]["in"] | {"bind": f"127.0.0.1:{port}"} | settings
        return config

    def stop(self) -> None:
        self.connect.stop()
        self.listen.stop()


@pytest.fixture
def rig(tmp_path: Path, echo: Target) -> Iterator[Rig]:
    rig = Rig(tmp_path, echo.to)
    yield rig
    rig.stop()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def closing(path: Path) -> Iterator[Callable[[], None]]:
    """Gives a function that waits until this file was opened and closed twice since the beginning of the block (inotify(7)).

    A reload reads a file twice: for its digest, by which later changes are noticed, and for the plan.
    """
    fd = _libc.inotify_init1(os.O_CLOEXEC)
    try:
        events = _IN_OPEN | _IN_CLOSE_NOWRITE  # two events that are equal and follow each other would be one
        assert _libc.inotify_add_watch(fd, os.fsencode(path), events) > 0

        def wait() -> None:
            closed = 0
            while closed < 2:
                assert select.select([fd], [], [], TIMEOUT)[0], f"{path} was not read"
                masks = (mask for _, mask, _, _ in struct.iter_unpack("iIII", os.read(fd, 4096)))
                closed += sum(bool(mask & _IN_CLOSE_NOWRITE) for mask in masks)

        yield wait
    finally:
        os.close(fd)


def answers(address: tuple[str, int], word: bytes) -> set[bytes]:
    """What new connections get back, from each of the workers."""
    found = set()
    for _ in range(MANY):
        with connect(address) as client:
            client.sendall(word)
            found.add(read_exactly(client, len(word)))
    return found


def test_reloads_under_load(rig: Rig) -> None:
    """No change, changed settings, another tunnel coming and going: byte-exact, none dropped, and nobody new refused."""
    port = free_port()
    with busy(rig.address, pumping=6, hammer=2) as (pumps, hammer):
        for round_ in range(8):
            config = copy.deepcopy(rig.listen.config)
            if round_ % 4 == 1:
                config = rig.changed(idle_timeout=600 + round_, max_connections=501 + round_)
            elif round_ % 4 == 2:
                config = rig.with_more(port)
            elif round_ % 4 == 3:
                config["tunnels"] = {"in": config["tunnels"]["in"]}
            line = rig.listen.reload(config)
            assert "worker" not in line
            assert listens(port) is (round_ % 4 == 2)
            pumps.go_on()
            hammer.go_on()
    assert len(rig.listen.log("reloaded")) == 8
    assert rig.listen.log("listening", tunnel="in") == rig.listen.log("listening", tunnel="in")[:2]
    assert {line["worker"] for line in rig.listen.ended()} == {0, 1}
    assert not rig.listen.log("connection refused", tunnel="in") + rig.connect.log("connection refused")
    assert rig.connect.stop() == rig.listen.stop() == 0
    assert not rig.listen.log(level="error")


def test_all_serve_by_the_new_file(rig: Rig) -> None:
    def capitals(sock: socket.socket) -> None:
        while data := sock.recv(1 << 16):
            sock.sendall(data.upper())

    with Target(capitals) as loud, connect(rig.address) as old:
        talk(old)
        rig.listen.reload(rig.changed(to=loud.to))
        assert answers(rig.address, b"word") == {b"WORD"}
        talk(old)
        old.shutdown(socket.SHUT_WR)
        assert read_all(old) == b""


def test_added_and_removed(rig: Rig, tmp_path: Path) -> None:
    """A tunnel on a port, one on a unix socket; the first is renamed, then both go, and what they carried is drained."""
    port, door = free_port(), tmp_path / "door"
    config = rig.with_more(port)
    config["tunnels"]["file"] = config["tunnels"]["in"] | {"bind": f"unix:{door}"}
    assert rig.listen.reload(config)["added"] == [f"more{port}", "file"]
    assert {line["worker"] for line in rig.listen.wait_log("listening", tunnel="file", count=2)} == {0, 1}
    config["tunnels"]["renamed"] = config["tunnels"].pop(f"more{port}")
    config["tunnels"]["file"] |= {"bind_mode": "0660"}
    assert rig.listen.reload(config)["removed"] == [f"more{port}"]
    assert door.stat().st_mode & 0o777 == 0o660
    far = copy.deepcopy(rig.connect.config)
    far["tunnels"]["out"]["to"] = f"127.0.0.1:{port}"
    far["tunnels"]["file"] = far["tunnels"]["out"] | {"bind": "127.0.0.1:0", "to": f"unix:{door}"}
    rig.connect.reload(far)
    with connect(rig.address) as first, connect(rig.connect.address_of("file")) as second:
        talk(first)
        talk(second)
        config["tunnels"] = {"in": config["tunnels"]["in"]}
        rig.listen.reload(config)
        assert not listens(port)
        assert not door.exists()
        for sock in (first, second):
            talk(sock)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""


def test_from_one_interface_to_all(rig: Rig) -> None:
    """The old sockets are in the way of the new ones until they have gone."""
    port = free_port()
    rig.listen.reload(rig.with_more(port))
    assert rig.listen.reload(rig.with_more(port, bind=f"0.0.0.0:{port}"))["changed"]
    far = copy.deepcopy(rig.connect.config)
    far["tunnels"]["out"]["to"] = f"127.0.0.2:{port}"
    rig.connect.reload(far)
    assert answers(rig.address, b"word") == {b"word"}


def test_bad_file_changes_nothing_in_any(rig: Rig) -> None:
    admin = Admin(rig.listen)
    with Target() as taken, connect(rig.address) as old:
        talk(old)
        port = free_port()
        base = rig.with_more(port)
        base["tunnels"]["in"]["to"] = taken.to
        last = base["tunnels"]["in"] | {"bind": taken.to, "to": rig.to}
        bad = {
            "there is no such key": {"targets": "x"},
            "another program is listening there": {"tunnels": base["tunnels"] | {"last": last}},
            "only a new start changes the number of processes": {"workers": 3},
            "no.key does not exist": {"identity": "no.key"},
        }
        good = rig.listen.config
        for count, (words, settings) in enumerate(bad.items(), 1):
            line = rig.listen.reload_refused(base | settings)
            assert words in line["why"]
            assert "worker" not in line
            assert not listens(port)
            assert len(rig.listen.log("reload refused: everything goes on as before")) == count
            assert admin.metric("stcp_reloads_total", result="failed") == count
        assert answers(rig.address, b"word") == {b"word"}
        talk(old)
    assert rig.listen.reload(good)["untouched"] == ["in"]


def test_one_that_cannot_keeps_all_from_it(rig: Rig) -> None:
    """One worker is out of descriptors: at once, or only when the new listening sockets arrive."""
    ports = [free_port(), free_port()]
    config = rig.with_more(*ports)
    config["tunnels"]["in"]["to"] = "127.0.0.1:9"
    worker = rig.workers()[1]
    used = {int(fd) for fd in os.listdir(f"/proc/{worker}/fd")}
    full = next(fd for fd in range(len(used) + 1) if fd not in used)
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    for room, words in (
        (0, "no descriptor is left to receive the plan"),
        (1, "no descriptor is left for the new listening sockets"),
    ):
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (full + room, hard))
        line = rig.listen.reload_refused(config)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
        assert line["why"].startswith("worker 1: ")
        assert words in line["why"]
        # the parent logs the refusal while the workers still close what they had received
        wait_for(lambda: not any(map(listens, ports)), words="a worker still has a listening socket of the refused plan")
        assert answers(rig.address, b"word") == {b"word"}
    config["tunnels"]["in"]["to"] = rig.to
    assert len(rig.listen.reload(config)["added"]) == 2
    assert all(map(listens, ports))


def test_a_file_that_changes_while_it_is_read(rig: Rig) -> None:
    """All workers serve what the parent has read, down to a key: here the last of them receives it late."""
    late = rig.workers()[1]
    rig.keys.add("other")
    key = rig.listen.file.parent / "server.key"
    os.kill(late, signal.SIGSTOP)
    try:
        rig.listen.write(rig.changed(max_connections=400))
        with closing(key) as wait_closed:
            rig.listen.signal(signal.SIGHUP)
            wait_closed()  # the key is read after the file that names it
        key.with_name("other.key").replace(key)
    finally:
        os.kill(late, signal.SIGCONT)
    rig.listen.wait_log("reloaded")
    assert answers(rig.address, b"word") == {b"word"}
    rig.listen.reload()  # now all have the other key
    assert end_of_new(rig.address)[1] == b""
    assert rig.connect.wait_log("connection refused")


def test_revoked_key_ends_its_connections_in_all(rig: Rig) -> None:
    clients = [connect(rig.address) for _ in range(MANY)]
    for client in clients:
        talk(client)
    other = str(rig.keys.add("client-2").public)
    line = rig.listen.reload(copy.deepcopy(rig.listen.config) | {"peers": {"app": other}})
    assert line["keys_out"]
    for client in clients:
        assert end_of(client) == ("reset", b"")
        client.close()
    assert {line["worker"] for line in rig.listen.ended(MANY, reason="aborted")} == {0, 1}


def test_command(rig: Rig) -> None:
    """Through the admin address, which the first worker has."""

    def command(*flags: str) -> subprocess.CompletedProcess[str]:
        return forked.run("reload", "--admin", Admin(rig.listen).text, *flags)

    rig.listen.write(rig.changed(max_connections=500))
    for flags in (["--check"], []):
        shown = command(*flags)
        assert (shown.returncode, shown.stdout) == (0, "~ tunnel in: max_connections 10000 -> 500\n"), shown.stderr
    assert len(rig.listen.log("reloaded")) == 1
    assert Admin(rig.listen).metric("stcp_reloads_total", result="applied") == 1
    rig.listen.write(rig.changed(bnid=1))
    for flags in (["--check"], []):
        refused = command(*flags)
        assert refused.returncode == 1
        assert "tunnels.in.bnid: there is no such key; did you mean 'bind'?" in refused.stderr


def test_signal_while_it_stops(rig: Rig) -> None:
    with connect(rig.address) as client:
        talk(client)
        rig.listen.signal(signal.SIGTERM)
        rig.listen.wait_log("stopping", count=2)
        rig.listen.signal(signal.SIGHUP)
        rig.listen.wait_log("the file is not read again: this proxy is stopping")
        talk(client)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert rig.listen.wait() == 0
