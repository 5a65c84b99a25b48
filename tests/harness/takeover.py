"""A proxy that is replaced while it serves, and clients that notice every refusal and every cut."""

from __future__ import annotations

import copy
import json
import os
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

from harness.files import FileProxy
from harness.process import wait_for
from harness.proxies import Keys, Proxy
from harness.sockets import connect, free_port, read_exactly

BLOCK = 64 * 1024
PUMPS = 10
PAUSE = 0.01
"""Seconds between two blocks, and between two short connections: the new process needs a processor to start."""
LONG = 120.0
"""Seconds for the start of a process beside that load on a busy machine."""


class Rig:
    """A listening proxy that is replaced again and again, behind a connecting proxy that stays.

    Args:
        folder: of files and logs.
        to: the target.
        settings: further settings of the listening proxy.
    """

    def __init__(self, folder: Path, to: str, **settings: Any) -> None:
        self.folder = folder
        self.keys = Keys(folder)
        self.admin_port = free_port()
        self.config = {
            "identity": "server.key",
            "peers": {"app": str(self.keys.client.public)},
            "admin": f"127.0.0.1:{self.admin_port}",
            "takeover": f"unix:{folder}/takeover.sock",
            "drain": "20s",
            "tunnels": {"in": {"mode": "listen", "bind": "127.0.0.1:0", "to": to, "allow": "app"}},
            **settings,
        }
        first = FileProxy(folder, "listen", self.config)
        self.generations: list[Proxy] = [first]
        self.file = first.file
        self.tunnel = first.address_of("in")
        tunnel = {"mode": "connect", "bind": "127.0.0.1:0", "to": "{}:{}".format(*self.tunnel), "peer": "db"}
        db = {"db": str(self.keys.server.public)}
        self.connect = FileProxy(folder, "connect", {"identity": "client.key", "peers": db, "tunnels": {"out": tunnel}})
        self.address = self.connect.address_of("out")

    @property
    def old(self) -> Proxy:
        return self.generations[-1]

    def newcomer(self, name: str, *arguments: str, **more: Any) -> Proxy:
        return Proxy(["run", str(self.file), "--replace", *arguments], log=self.folder / f"{name}.log", **more)

    def replace(self, *, workers: int = 1) -> Proxy:
        """Replace the proxy, and wait until the new one has taken over."""
        new = self.newcomer(f"listen-{len(self.generations)}")
        self.generations.append(new)
        new.wait_log("took over from the old process", timeout=LONG)
        new.wait_log("ready", count=workers, timeout=LONG)
        return new

    def write(self, **settings: Any) -> None:
        self.config = {**copy.deepcopy(self.config), **settings}
        self.file.write_text(json.dumps(self.config))

    def answers(self) -> str:
        """The start time of the process that answers at the admin address."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/status", timeout=20) as answer:
            found = json.load(answer)
        return str(found["process"]["started"])

    def exchange(self, words: bytes = b"words") -> None:
        with connect(self.address) as client:
            client.sendall(words)
            assert read_exactly(client, len(words)) == words

    def stop(self) -> None:
        self.connect.stop()
        for each in reversed(self.generations):
            each.stop()


class Load:
    """Connections that pump all the time, and a churn of short ones; a context manager.

    Attributes:
        failures: what went wrong.
        short: the number of short connections that were served.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.failures: list[str] = []
        self.short = 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._guard, args=(self._pump,)) for _ in range(PUMPS)]
        self._threads += [threading.Thread(target=self._guard, args=(self._churn,)) for _ in range(2)]

    def _guard(self, work: Any) -> None:
        try:
            work()
        except (OSError, AssertionError) as exc:
            self.failures.append(f"{work.__name__}: {type(exc).__name__}: {exc}")

    def _pump(self) -> None:
        block = os.urandom(BLOCK)
        with connect(self.rig.address) as sock:
            while not self._end.is_set():
                sock.sendall(block)
                assert read_exactly(sock, BLOCK) == block
                self._end.wait(PAUSE)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""

    def _churn(self) -> None:
        while not self._end.is_set():
            self.rig.exchange()
            self.short += 1
            self._end.wait(PAUSE)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(LONG)

    def served(self, more: int) -> None:
        """Wait until so many further short connections were served."""
        wanted = self.short + more
        wait_for(lambda: self.short >= wanted or bool(self.failures), words=f"{wanted} short connections", timeout=LONG)
