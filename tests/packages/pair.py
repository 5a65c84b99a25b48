"""A pair of proxies as installed carries bytes, and the fast path in C is what moves them, or is not there.

    python pair.py compiled|pure

Runs with the Python of a virtual environment that has stcp-proxy. Each proxy counts the bytes that the interpreter reads on
either leg; the bytes of the fast path are not among them. Fails with the first thing that is wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIZE = 64 << 20
"""Bytes that go through the pair and come back."""
SHORT = 200
"""Connections with one message each."""
DEADLINE = 120.0
"""Seconds for anything to happen."""
COUNTED = """
import json, os, sys
from stcp_proxy.relay.plain_to_wire import PlainToWire
from stcp_proxy.relay.wire_to_plain import WireToPlain

read = {"plain": 0, "wire": 0}
up, down = PlainToWire._up_read, WireToPlain._receive

def counted_up(self, n, full):
    read["plain"] += n
    up(self, n, full)

def counted_down(self, room):
    n = down(self, room)
    read["wire"] += n
    return n

PlainToWire._up_read, WireToPlain._receive = counted_up, counted_down
# The proxy ends in os._exit, and its sandbox opens no file then.
own, leave, count = os.getpid(), os._exit, open(sys.argv[-1] + ".count", "w")

def counted_exit(status):
    if os.getpid() == own:
        json.dump(read, count)
        count.flush()
    leave(status)

os._exit = counted_exit
from stcp_proxy.cli import main
try:
    main()
except SystemExit as end:
    counted_exit(end.code)
"""
PROGRAM = Path(sys.executable).with_name("stcp-proxy")


def main(kind: str) -> None:
    """Start the pair, carry, stop it, and look at what the interpreter has counted."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        echo = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=serve_echo, args=(echo,), daemon=True).start()
        port = configure(folder, echo.getsockname()[1])
        environment = os.environ | {"STCP_COMPILED": "1" if kind == "compiled" else ""}
        proxies = [start(folder / f"{side}.yaml", environment) for side in ("server", "client")]
        for number in range(SHORT):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
                message = f"message {number}".encode()
                connection.sendall(message)
                assert connection.recv(100) == message, "another message came back"
        carry(port)
        for proxy in proxies:
            proxy.terminate()
            assert proxy.wait(DEADLINE) == 0, "a proxy did not stop in order"
        counts = [json.loads((folder / f"{side}.yaml.count").read_text(encoding="utf-8")) for side in ("server", "client")]
    for count in counts:
        for leg, read in count.items():
            share = read / SIZE
            assert share < 0.01 if kind == "compiled" else share > 0.9, (
                f"{kind}: the interpreter read {read} bytes of the {leg} leg: {counts}"
            )
    print(f"{SIZE >> 20} MiB through the pair and back, {kind}; the interpreter read {counts}")


def configure(folder: Path, target: int) -> int:
    """Write keys and files of both sides; return the client's port."""
    public = {}
    for side in ("server", "client"):
        told = subprocess.run([PROGRAM, "keygen", "--out", folder / f"{side}.key"], check=True, stdout=subprocess.PIPE, text=True)
        public[side] = re.findall(r"stcp-pub:\S+", told.stdout)[0]
    wire, port = free_port(), free_port()
    (folder / "server.yaml").write_text(
        f"""identity: {folder}/server.key
engine: python
peers: {{client: "{public["client"]}"}}
tunnels:
  echo: {{mode: listen, bind: "127.0.0.1:{wire}", to: "127.0.0.1:{target}", allow: client}}
""",
        encoding="utf-8",
    )
    (folder / "client.yaml").write_text(
        f"""identity: {folder}/client.key
engine: python
peers: {{server: "{public["server"]}"}}
tunnels:
  echo: {{mode: connect, bind: "127.0.0.1:{port}", to: "127.0.0.1:{wire}", peer: server}}
""",
        encoding="utf-8",
    )
    return port


def start(file: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a proxy; return it when its log says that it is ready."""
    log = file.with_suffix(".log")
    with log.open("wb") as stream:
        proxy = subprocess.Popen([sys.executable, "-c", COUNTED, "run", str(file)], stderr=stream, env=environment)
    end = time.monotonic() + DEADLINE
    while b'"ready"' not in log.read_bytes():
        assert proxy.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, f"{file.stem} is not ready"
        time.sleep(0.05)
    return proxy


def carry(port: int) -> None:
    """Send SIZE bytes and read them back, then close the sending side and read to the end."""
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:

        def send() -> None:
            for _ in range(SIZE // len(block)):
                connection.sendall(block)
                sent.update(block)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while data := connection.recv(1 << 18):
            received.update(data)
        sender.join()
    assert sent.digest() == received.digest(), "other bytes came back"


def serve_echo(listener: socket.socket) -> None:
    """Echo what comes to its end, one thread for each connection."""

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 18):
                connection.sendall(data)

    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


def free_port() -> int:
    """A port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(sys.argv[1])
