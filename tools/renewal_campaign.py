"""Renew certificates under load, and count what was lost or refused: `python tools/renewal_campaign.py`.

Two proxies hold many connections, over which bytes go in turn. New connections are made all the while. Both proxies watch their
files, and each gets a new certificate every few seconds: one file after the other, each by a rename. The last lines say how many
of them were put in force, and how long a reload took from the change that was found. A reload that finds one new file beside one
old one is refused, and the next look reads again. The exit status is 1 when a connection was lost or refused.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import socket
import socketserver
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from certificate_peers import Authority
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stcp_proxy.lab.bench.pair import free_port

NAMES: Final = {"listen": "db.prod.internal", "connect": "app.prod.internal"}
PATIENCE: Final = 120.0
WORD: Final = bytes(range(64))


class Echo(socketserver.BaseRequestHandler):
    """The target: sends back what it gets."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while data := self.request.recv(4096):
                self.request.sendall(data)


class Side:
    """One proxy with its certificate."""

    def __init__(self, folder: Path, authority: Authority, side: str, tunnel: str, watch: str) -> None:
        self.folder, self.authority, self.side = folder, authority, side
        self.serials: list[str] = []
        self.renew()
        (folder / f"{side}.yaml").write_text(
            f"certificate: {{chain: {side}.crt, key: {side}-tls.key}}\nauthorities: {{prod: ca.crt}}\nwatch: {watch}\n"
            f"log: {{level: info, format: json}}\ntunnels:\n  tunnel: {tunnel}\n"
        )
        command = [sys.executable, "-P", "-m", "stcp_proxy", "run", str(folder / f"{side}.yaml")]
        with (folder / f"{side}.log").open("wb") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: bool(self.lines("ready")), f"{side} starts")

    def renew(self) -> None:
        """Replace both files."""
        der, key = self.authority.issue(NAMES[self.side])
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        put(self.folder / f"{self.side}.crt", ssl.DER_cert_to_PEM_cert(der).encode())
        put(self.folder / f"{self.side}-tls.key", pem)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of an event. The last line may not be complete yet."""
        text = (self.folder / f"{self.side}.log").read_text()
        found = [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]
        return [line for line in found if line["event"] == event]

    def pace(self) -> list[float]:
        """Seconds from the log line of a change to that of its reload."""
        return [
            (when(after) - when(before)).total_seconds()
            for before, after in zip(self.lines("files changed"), self.lines("reloaded"), strict=False)
        ]


class Load:
    """Connections that stay, and connections that come and go.

    Attributes:
        failures: what went wrong.
        exchanges: exchanges over the connections that stay.
        made: connections that came and went.
    """

    def __init__(self, port: int, count: int) -> None:
        self.failures: list[str] = []
        self.exchanges = self.made = 0
        self._port, self._stopping = port, threading.Event()
        self._socks: list[socket.socket] = []
        for _ in range(count):  # one after the other: a thousand handshakes at once would be a test of the limits
            sock = self._connect()
            exchange(sock)
            self._socks.append(sock)
        self._threads = [threading.Thread(target=self._hold), threading.Thread(target=self._come_and_go)]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), PATIENCE)

    def _hold(self) -> None:
        for number, sock in itertools.cycle(enumerate(self._socks)):
            if self._stopping.wait(0.001):
                return
            self._try(f"connection {number}", lambda sock=sock: exchange(sock))  # type: ignore[misc]
            self.exchanges += 1

    def _come_and_go(self) -> None:
        while not self._stopping.wait(0.05):
            self._try("a new connection", self._one)
            self.made += 1

    def _one(self) -> None:
        with self._connect() as sock:
            exchange(sock)

    def _try(self, words: str, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as exc:
            self.failures.append(f"{words}: {exc!r}")

    def finish(self) -> None:
        """Use every connection once more, then end all."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for number, sock in enumerate(self._socks):
            self._try(f"connection {number}, at the end", lambda sock=sock: exchange(sock))  # type: ignore[misc]
            sock.close()


def exchange(sock: socket.socket) -> None:
    """Send a word and receive it back.

    Raises:
        OSError: it does not come back.
    """
    sock.sendall(WORD)
    back = b""
    while len(back) < len(WORD):
        data = sock.recv(4096)
        if not data:
            raise OSError("closed")
        back += data
    if back != WORD:
        raise OSError("other bytes came back")


def put(path: Path, content: bytes) -> None:
    """Replace a file by a rename."""
    new = path.with_name(f".{path.name}")
    new.touch(0o600)
    new.write_bytes(content)
    new.rename(path)


def when(line: dict[str, Any]) -> datetime:
    """The time of a log line."""
    return datetime.fromisoformat(line["timestamp"])


def until(what: Callable[[], bool], words: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            sys.exit(f"not in {PATIENCE:g} seconds: {words}")
        time.sleep(0.05)


def campaign(folder: Path, arguments: argparse.Namespace) -> bool:
    """Run all. Returns what `report` returns."""
    authority = Authority()
    put(folder / "ca.crt", authority.root.public_bytes(Encoding.PEM))
    socketserver.ThreadingTCPServer.request_queue_size = 256
    wire, port = free_port(), free_port()
    sides: list[Side] = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as target:
        target.daemon_threads = True
        threading.Thread(target=target.serve_forever, daemon=True).start()
        to = target.server_address[1]
        tunnels = {
            "listen": f'{{mode: listen, bind: "127.0.0.1:{wire}", to: "127.0.0.1:{to}", allow: "dns:{NAMES["connect"]}"}}',
            "connect": f'{{mode: connect, bind: "127.0.0.1:{port}", to: "127.0.0.1:{wire}", peer: "dns:{NAMES["listen"]}"}}',
        }
        try:
            for side, tunnel in tunnels.items():
                sides.append(Side(folder, authority, side, tunnel, arguments.watch))
            load = Load(port, arguments.connections)
            for _ in range(arguments.renewals):
                began = time.monotonic()
                for each in sides:
                    each.renew()
                time.sleep(max(0.0, began + arguments.every - time.monotonic()))
            load.finish()
        finally:
            for each in sides:
                each.child.terminate()
            for each in sides:
                each.child.wait(PATIENCE)
        target.shutdown()
    return report(sides, load, arguments)


def report(sides: list[Side], load: Load, arguments: argparse.Namespace) -> bool:
    """Print the figures. Returns whether both sides reloaded, and no connection was lost or refused."""
    bad = len(load.failures)
    busy = os.getloadavg()[0]
    print(f"{arguments.renewals} renewals, one every {arguments.every:g} s; watch {arguments.watch}; load average {busy:.0f}")
    stayed = f"{arguments.connections} connections stayed, {load.exchanges} exchanges over them"
    print(f"{stayed}; {load.made} connections came and went; {bad} lost or refused")
    for line in load.failures[:10]:
        print(f"  {line}")
    for side in sides:
        refused = len(side.lines("connection refused"))
        again = side.lines("reload refused: everything goes on as before")
        paces = side.pace()
        took = f"{statistics.median(paces):.2f} s median, {max(paces):.2f} s most" if paces else "none"
        print(f"{side.side}: {len(paces)} reloads ({took}), {len(again)} reloads refused, {refused} connections refused")
        for line in again[:3]:
            print(f"  {line['why']}")
        bad += refused
    return bad == 0 and all(side.pace() for side in sides)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--renewals", type=int, default=30)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two renewals")
    parser.add_argument("--watch", default="500ms", help="the setting of both proxies")
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if campaign(Path(folder), arguments) else 1)


if __name__ == "__main__":
    main()
