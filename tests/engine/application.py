"""Programs that use a pod's proxy and check every byte, with Python's standard library alone.

    python3 application.py stream PORT REPORT    a server that sends data, and after SIGTERM finishes its open connections
    python3 application.py finish HOST REPORT    a client of Redis that goes on after SIGTERM, then ends its connection
    python3 application.py fetch PORT REPORT     a client of `stream`
    python3 application.py load NUMBER REPORT    clients of Redis at 127.0.0.1 that write and read all the time
    python3 application.py fresh REPORT          a client of Redis at 127.0.0.1 with a new connection for each of its writes

REPORT is a file of JSON, written anew as the program gets on.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECRET = "only-the-two-ends-may-read-this"
GRACE = 8.0
"""Seconds that `stream` and `finish` go on after SIGTERM: past what a stop without a drain would leave them."""
AFTER = 8.0
"""Seconds that `finish` then tries new connections."""

ending = threading.Event()


def piece(number: int, size: int) -> bytes:
    """Bytes that differ from piece to piece, and that the test looks for on the wire."""
    unit = f"{SECRET}-{number:010}-".encode()
    return (unit * (size // len(unit) + 1))[:size]


def write(report: str, **content: Any) -> None:
    """Replace a report as a whole."""
    part = Path(f"{report}.part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(report)


class Redis:
    """One connection to Redis. Every method raises OSError where the connection ends before its answer."""

    def __init__(self, host: str, patience: float = 30.0) -> None:
        self._socket = socket.create_connection((host, 6379), timeout=patience)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, *words: bytes) -> bytes:
        """The answer to a command: a status, a number or a string."""
        self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the connection ended")
        if line[:1] != b"$":
            return line[1:-2]
        found = self._file.read(int(line[1:]) + 2)
        if len(found) < int(line[1:]) + 2:
            raise ConnectionResetError("the connection ended within an answer")
        return found[:-2]


# -- in a pod ------------------------------------------------------------------------------------------------------------------


def stream(port: str, report: str) -> None:
    """Send each client data until SIGTERM and for `GRACE` after it, then their SHA-256 and FIN."""
    listener = socket.create_server(("127.0.0.1", int(port)))
    listener.settimeout(0.1)
    threads = []
    while not ending.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        threads.append(threading.Thread(target=send_all, args=(connection,)))
        threads[-1].start()
    asked = time.time()
    listener.close()
    for thread in threads:
        thread.join()
    write(report, asked=asked, ended=time.time())


def send_all(connection: socket.socket) -> None:
    digest = hashlib.sha256()
    number, end = 0, float("inf")
    with connection:
        connection.settimeout(30)
        while time.monotonic() < end:
            data = piece(number, 16384)
            connection.sendall(data)
            digest.update(data)
            number += 1
            if ending.is_set() and end == float("inf"):
                end = time.monotonic() + GRACE
            time.sleep(0.005)
        connection.sendall(digest.digest())


def finish(host: str, report: str) -> None:
    """Append to a value through one connection until `GRACE` after SIGTERM; compare the value; then try new connections."""
    key, digest = b"log-%d" % time.time_ns(), hashlib.sha256()
    number, asked = 0, 0.0
    new: list[str] = []
    while outcome(host) != "answer":  # Podman starts it beside the proxy, not after it
        time.sleep(0.2)
    with Redis(host) as redis:
        while not asked or time.time() < asked + GRACE:
            data = piece(number, 4096)
            digest.update(data)
            number += 1
            assert redis.ask(b"APPEND", key, data) == b"%d" % (4096 * number), "an answer of another length"
            if ending.is_set() and not asked:
                asked = time.time()
            write(report, appended=number, asked=asked)
            time.sleep(0.005)
        same = hashlib.sha256(redis.ask(b"GET", key)).digest() == digest.digest()
    ended = time.time()
    while time.time() < ended + AFTER:
        new.append(outcome(host))
        time.sleep(0.2)
    write(report, appended=number, asked=asked, ended=ended, same=same, new=new)


def outcome(host: str) -> str:
    """What comes of a new connection: "answer", or the name of the error."""
    try:
        with Redis(host, patience=5) as redis:
            data = piece(time.time_ns() % 10**9, 4096)
            key = b"fresh-%d" % os.getpid()
            assert redis.ask(b"SET", key, data) == b"OK"
            assert redis.ask(b"GET", key) == data, "other bytes"
        return "answer"
    except OSError as exc:
        return type(exc).__name__


# -- beside a pod, in its network ----------------------------------------------------------------------------------------------


def fetch(port: str, report: str) -> None:
    """Receive what `stream` sends, to its end."""
    digest, received, tail = hashlib.sha256(), 0, b""
    with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as connection:
        while data := connection.recv(65536):
            data = tail + data
            data, tail = data[:-32], data[-32:]  # the last 32 bytes are the sender's digest
            digest.update(data)
            received += len(data)
            write(report, received=received)
    write(report, received=received, ended=time.time(), same=tail == digest.digest())


def load(clients: str, report: str) -> None:
    """Write and read through some connections until SIGTERM, or until each is ended from the other side."""
    checked, ends = [0] * int(clients), [""] * int(clients)

    def client(number: int) -> None:
        try:
            with Redis("127.0.0.1") as redis:
                while not ending.is_set():
                    data = piece(checked[number], 32768)
                    assert redis.ask(b"SET", b"load-%d" % number, data) == b"OK"
                    assert redis.ask(b"GET", b"load-%d" % number) == data, "other bytes"
                    checked[number] += 1
        except OSError as exc:
            ends[number] = type(exc).__name__
        except AssertionError as exc:
            ends[number] = f"wrong: {exc}"

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(ends))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        write(report, checked=checked, ends=ends)
        time.sleep(0.2)
    write(report, checked=checked, ends=ends, ended=time.time())


def fresh(report: str) -> None:
    """Try new connections, each with a write and a read, until SIGTERM."""
    results: list[tuple[float, str]] = []
    while not ending.is_set():
        results.append((time.time(), outcome("127.0.0.1")))
        write(report, results=results)
        time.sleep(0.05)


ROLES: dict[str, Callable[..., None]] = {each.__name__: each for each in (stream, finish, fetch, load, fresh)}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    ROLES[sys.argv[1]](*sys.argv[2:])
