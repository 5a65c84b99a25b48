"""Try hard to make kept wire legs lose, double or mix up bytes: `python tools/kept_leg_campaign.py [kills|large|churn]`.

- kills   clients make short connections, whose bytes go with OPEN; one of the two proxies is killed (SIGKILL) and started again,
          many times. No request may reach the server twice, and none may end cleanly without its whole answer.
- large   999 short connections, then 24 MiB both ways as the thousandth of the same wire leg, compared by hash
- churn   short connections for minutes: memory and descriptors of both proxies have to stay flat

All processes are children of this tool and end with it. Nothing leaves loopback. The exit status is 1 when something was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from stcp_proxy.keys import PrivateKey, format_private_key, write_secret_file
from stcp_proxy.lab import loadgen
from stcp_proxy.lab.bench.pair import free_port

SIDES: Final = ("listen", "connect")
PATIENCE: Final = 300.0
"""Seconds for a proxy to start, and for one request."""
HEAD: Final = 12
"""Bytes in front of a request: number (u64) and length (u32)."""
ANSWER: Final = 8 + 32
"""Bytes of an answer: number and hash of the request."""
LARGE: Final = 24 << 20


class Site:
    """Two proxies that are killed and started again; their ports stay the same.

    Args:
        folder: keys, files and logs.
        target: the server's port.
        keep: the text of `keep` on both sides.
        level: the log level.
    """

    def __init__(self, folder: Path, target: int, *, keep: str, level: str = "warning") -> None:
        self.folder = folder
        wire, self.port = free_port(), free_port()
        public = {}
        for side in SIDES:
            key = PrivateKey.generate()
            write_secret_file(str(folder / f"{side}.key"), format_private_key(key))
            public[side] = str(key.public)
        tunnels = {
            "listen": f"{{mode: listen, bind: 127.0.0.1:{wire}, to: 127.0.0.1:{target}, allow: other, keep: {keep}}}",
            "connect": f"{{mode: connect, bind: 127.0.0.1:{self.port}, to: 127.0.0.1:{wire}, peer: other, keep: {keep}}}",
        }
        for side, other in (SIDES, SIDES[::-1]):
            (folder / f"{side}.yaml").write_text(
                f"identity: {folder}/{side}.key\npeers: {{other: {public[other]}}}\nlog: {{level: {level}, format: json}}\n"
                f"engine: python\ntunnels:\n  tunnel: {tunnels[side]}\n"
            )
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = 0

    def start(self, side: str) -> None:
        """Start one proxy, and wait until its port is there."""
        self._starts += 1
        with (self.folder / f"{side}.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "stcp_proxy", "run", str(self.folder / f"{side}.yaml")]
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.children[side] = child
        deadline = time.monotonic() + PATIENCE
        while not self._listens(child.pid):
            if child.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{side} does not start:\n{(self.folder / f'{side}.log').read_text()[-2000:]}")
            time.sleep(0.01)

    def _listens(self, pid: int) -> bool:
        """Whether a process has a listening socket. A connection would be one that nobody has counted."""
        ends = set()
        for path in _descriptors(pid):
            with contextlib.suppress(OSError):  # closed meanwhile
                ends.add(os.readlink(path))
        table = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return any(row.split()[3] == "0A" and f"socket:[{row.split()[9]}]" in ends for row in table)

    def kill(self, side: str) -> None:
        """Kill one proxy, as `kill -9` does."""
        self.children[side].send_signal(signal.SIGKILL)
        self.children[side].wait()

    def lines(self, side: str, event: str) -> list[dict[str, Any]]:
        """The log lines of an event. A killed process may have left a part of one."""
        found = []
        for line in (self.folder / f"{side}.log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                if (fields := json.loads(line))["event"] == event:
                    found.append(fields)
        return found

    def stop(self) -> None:
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _descriptors(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    return []


@contextlib.contextmanager
def running(target: int, **settings: Any) -> Iterator[Site]:
    """Both proxies in front of a server."""
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), target, **settings)
        try:
            for side in SIDES:
                site.start(side)
            yield site
        finally:
            site.stop()


class Server:
    """Answers each request with its number and its hash, and counts what it has acted upon."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(PATIENCE)
            head = _read(sock, HEAD)
            if len(head) < HEAD:
                return
            number, size = int.from_bytes(head[:8], "big"), int.from_bytes(head[8:], "big")
            body = _read(sock, size)
            if len(body) < size:
                return
            with self._lock:
                self.seen[number] = self.seen.get(number, 0) + 1
                if body != _body(number, size):
                    self.wrong.append(f"request {number} arrived with the bytes of another one")
            sock.sendall(head[:8] + hashlib.sha256(body).digest())
            _read(sock, 1)


def _body(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def _read(sock: socket.socket, size: int) -> bytes:
    """Up to `size` bytes; fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return bytes(data)


class Clients:
    """Threads that make one request for each connection."""

    def __init__(self, port: int, count: int) -> None:
        self.answered: set[int] = set()
        self.resets = 0
        self.wrong: list[str] = []
        self._port, self._next, self._lock, self._done = port, 0, threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while not self._done.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            try:
                what = self._ask(number)
            except OSError as exc:
                if isinstance(exc, TimeoutError):
                    self.wrong.append(f"request {number} was neither answered nor reset within {PATIENCE:g} s")
                self.resets += 1
                time.sleep(0.02)
            else:
                if what:
                    self.wrong.append(f"request {number}: {what}")

    def _ask(self, number: int) -> str:
        """One connection. Returns what was wrong."""
        size = (1, 100, 1000, 20_000)[number % 4]
        body = _body(number, size)
        with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE) as sock:
            sock.sendall(number.to_bytes(8, "big") + size.to_bytes(4, "big") + body)
            answer = _read(sock, ANSWER)
        if answer == number.to_bytes(8, "big") + hashlib.sha256(body).digest():
            self.answered.add(number)
            return ""
        return "a clean end without the whole answer" if len(answer) < ANSWER else "the answer of another request"

    def has_answers(self, count: int) -> bool:
        """Whether so many requests were answered."""
        return len(self.answered) >= count

    def stop(self) -> None:
        """Let each thread finish its request."""
        self._done.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)


def kills(count: int, seed: int) -> list[str]:
    """Kill one of the two sides `count` times. Returns what was wrong."""
    rng, server = random.Random(seed), Server()
    per_side = dict.fromkeys(SIDES, 0)
    with running(server.port, keep="on", level="info") as site:
        clients = Clients(site.port, 6)
        for number in range(count):
            goal = len(clients.answered) + rng.randint(5, 30)
            _until(partial(clients.has_answers, goal), "requests are answered")
            side = rng.choice(SIDES)
            per_side[side] += 1
            site.kill(side)
            site.start(side)
            if number % 50 == 49:
                print(f"  {number + 1} kills, {len(clients.answered)} requests answered, {clients.resets} reset", flush=True)
        clients.stop()
        kept = sum(line["leg"] == "kept" for line in site.lines("connect", "connection closed"))
    twice = sum(times > 1 for times in server.seen.values())
    unseen = len(clients.answered - server.seen.keys())
    print(f"kills: {per_side}, {len(clients.answered)} requests answered, {kept} over kept wire legs")
    print(f"kills: {clients.resets} reset or refused, {twice} acted upon twice")
    wrong = [*server.wrong, *clients.wrong]
    wrong += [f"{twice} requests were acted upon twice"] * bool(twice)
    return wrong + [f"{unseen} answers without a request"] * bool(unseen)


class Ended:
    """Counts the connections of one side that have ended, by its log."""

    def __init__(self, site: Site, side: str) -> None:
        self._file = (site.folder / f"{side}.log").open()
        self._count = 0

    def wait_for(self, count: int) -> None:
        """Wait until so many have ended."""
        _until(lambda: self._look() >= count, f"{count} connections end")

    def _look(self) -> int:
        self._count += self._file.read().count('"event": "connection closed"')
        return self._count


def _until(what: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + 2 * PATIENCE
    while not what():
        if time.monotonic() > deadline:
            sys.exit(f"not in time: {words}")
        time.sleep(0.002)


def large() -> list[str]:
    """The thousandth connection of one leg carries 24 MiB both ways. Returns what was wrong."""

    def echo(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

    def send(sock: socket.socket, words: bytes) -> None:
        sock.sendall(words)
        sock.shutdown(socket.SHUT_WR)

    def accept() -> None:
        while True:
            threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    def ask(port: int, words: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            writer = threading.Thread(target=send, args=(sock, words))
            writer.start()
            digest = hashlib.sha256()
            while data := sock.recv(1 << 16):
                digest.update(data)
            writer.join()
        return digest.digest() == hashlib.sha256(words).digest()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    rng, wrong = random.Random(7), []
    with running(listener.getsockname()[1], keep="{idle: 5m, max_age: 2h}", level="info") as site:
        ended = Ended(site, "connect")
        for number in range(1000):
            if not ask(site.port, rng.randbytes(LARGE if number == 999 else rng.choice((1, 100, 5000)))):
                wrong.append(f"connection {number}: other bytes came back")
            ended.wait_for(number + 1)
        for side in SIDES:
            Ended(site, side).wait_for(1000)
            new = sum(line["leg"] == "new" for line in site.lines(side, "connection closed"))
            print(f"large: {side}: 1000 connections over {new} wire legs, the last one with {LARGE >> 20} MiB each way")
            wrong += [f"{side}: {new} wire legs"] * (new != 1)
    return wrong


def churn(minutes: float, clients: int) -> list[str]:
    """Short connections for some minutes. Returns what was not flat."""
    seconds, wrong = minutes * 60, []
    with loadgen.echo_server() as target, running(target, keep="on") as site:
        points: list[tuple[float, dict[str, tuple[int, int]]]] = []
        result: list[loadgen.Load] = []
        load = threading.Thread(
            target=lambda: result.append(loadgen.new_connections(site.port, clients=clients, seconds=seconds))
        )
        began = time.monotonic()
        load.start()
        while load.is_alive():
            now = time.monotonic() - began
            points.append(
                (now, {side: (_resident(child.pid), len(_descriptors(child.pid))) for side, child in site.children.items()})
            )
            load.join(min(5.0, seconds / 60))
        if not result:
            return ["the load failed"]
        print(f"churn: {result[0].total} connections in {seconds:.0f} s, {result[0].errors} errors")
        wrong += [f"{result[0].errors} connections failed"] * bool(result[0].errors)
        for side in SIDES:
            (early, fds), (late, more) = (_middle(points, side, seconds * a, seconds * b) for a, b in ((0.2, 0.4), (0.8, 1.0)))
            print(f"churn: {side}: {early / 2**20:.1f} MiB, {fds:.0f} descriptors; at the end {late / 2**20:.1f} MiB, {more:.0f}")
            wrong += [f"{side}: memory grew"] * (late > early * 1.03 + (1 << 20))
            wrong += [f"{side}: descriptors grew"] * (more > fds + 2 * clients)
    return wrong


def _middle(
    points: Sequence[tuple[float, dict[str, tuple[int, int]]]], side: str, begin: float, end: float
) -> tuple[float, float]:
    part = [held[side] for at, held in points if begin <= at <= end]
    return statistics.median(memory for memory, _ in part), statistics.median(fds for _, fds in part)


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help="kills, large, churn [default: all]")
    parser.add_argument("--kills", type=int, default=500, help="number of kills [default: 500]")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of churn [default: 10]")
    parser.add_argument("--clients", type=int, default=8, help="clients of the churn [default: 8]")
    parser.add_argument("--seed", type=int, default=1, help="of the order of kills [default: 1]")
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[str]]] = {
        "kills": lambda: kills(options.kills, options.seed),
        "large": large,
        "churn": lambda: churn(options.minutes, options.clients),
    }
    if unknown := set(options.part) - parts.keys():
        parser.error(f"there is no part {unknown.pop()!r}")
    wrong = [what for name, part in parts.items() if name in (options.part or parts) for what in part()]
    print("\n".join(f"WRONG: {what}" for what in wrong[:20]) or "no fault found")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
