"""Attack a listener of this machine as strangers do, and measure what honest peers feel: `python tools/flood.py silent`.

The tool starts `stcp-proxy listen` with keys of its own. Sources are addresses of 127.0.0.0/8, each in a network of its own.

- silent    connections that say nothing
- random    first messages of the right form whose bytes are random
- replay    one genuine first message, again and again
- prologue  the six bytes of the prologue, then silence
- admin     connections to the admin address that say nothing
- probes    connections to the admin address that ask for /healthz and stay open

Meanwhile an honest peer from a further source makes new connections, and one live connection makes round trips. With the last two
kinds, a further source asks the admin address for /healthz, another one for /status with the token. All processes are children
of this tool and end with it. Nothing leaves loopback.

`--pod` (root) plays a pod: a network namespace whose address 10.200.0.1 the attackers of 10.0.0.0/8 reach. /healthz and /status
are asked from 127.0.0.1, as probes in the container do, and the probe of configs/kubernetes runs as a command. `admin` and
`probes` attack an admin address on all addresses, as for Prometheus. Other kinds attack the listener, and the admin address is
on 127.0.0.1 as in the shipped files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import resource
import secrets
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stcp_proxy.keys import PrivateKey, format_private_key, write_secret_file
from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.handshake import Credentials, Initiator
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.prologue import prologue
from stcp_proxy.protocol.wire import HEADER_LEN, MESSAGE_1_LEN, MESSAGE_2_LEN, MESSAGE_LENGTH_LEN, FrameType, Suite

SUITE: Final = Suite.HYBRID_KEYS
MOST_SECONDS: Final = 60
HONEST: Final = "127.200.0.1"
LIVE: Final = "127.201.0.1"
PAUSE: Final = 0.05
"""Seconds between two new connections of the honest peer."""
PATIENCE: Final = 5.0
"""Seconds after which a new connection counts as failed."""
MOST_HELD: Final = 15_000
"""Connections that the attacker keeps open; beyond that, it closes its oldest."""
FORK: Final = multiprocessing.get_context("fork")
"""Children inherit their keys: a key is never pickled."""
Figures = dict[str, Any]


class Peer:
    """A peer that the listener allows."""

    def __init__(self, port: int, source: str, own: PrivateKey, server: bytes) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.bind((source, 0))
        noise = Initiator(SUITE, Credentials(static=KeyPair(own.secret)), remote_static=server)
        first = noise.message_1()
        self.began = time.perf_counter()
        self.sock.connect(("127.0.0.1", port))
        self.sock.sendall(first)
        established = noise.receive(self._read(MESSAGE_LENGTH_LEN + MESSAGE_2_LEN[SUITE]))
        assert established is not None
        self._sealer, self._opener = Sealer(established.send_key), Opener(established.receive_key)
        self.sock.sendall(self._sealer.seal(FrameType.OPEN, b""))
        if self._frame()[0] != FrameType.ACCEPT:
            raise ConnectionRefusedError

    def round_trip(self) -> None:
        """Send a small message, and wait for its echo."""
        self.sock.sendall(self._sealer.seal(FrameType.DATA, b"word"))
        assert self._frame() == (FrameType.DATA, b"word")

    def _frame(self) -> tuple[int, bytes]:
        head = self._read(HEADER_LEN)
        opened = self._opener.open(head + self._read(int.from_bytes(head[2:], "big")))
        assert opened is not None
        return opened[1], opened[2]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data


def newcomers(port: int, own: PrivateKey, server: bytes, until: float, out: Any) -> None:
    """Make new connections, one after the other, and time each from connect to the first echo."""
    took, failed = [], 0
    while time.monotonic() < until:
        try:
            peer = Peer(port, HONEST, own, server)
            peer.round_trip()
            took.append(time.perf_counter() - peer.began)
            peer.sock.close()
        except OSError:
            failed += 1
        time.sleep(PAUSE)
    out.put(("new connection", summary(took) | {"failed": failed}))


def round_trips(port: int, own: PrivateKey, server: bytes, until: float, out: Any) -> None:
    """Make round trips on one live connection."""
    took: list[float] = []
    peer = Peer(port, LIVE, own, server)
    while time.monotonic() < until:
        began = time.perf_counter()
        peer.round_trip()
        took.append(time.perf_counter() - began)
        time.sleep(0.005)
    out.put(("live round trip", summary(took)))


def requests(port: int, path: str, source: str, token: str, until: float, out: Any) -> None:
    """Ask the admin address again and again, on a connection of its own each time."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    took, failed = [], 0
    while time.monotonic() < until:
        began, answer = time.perf_counter(), b""
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.settimeout(PATIENCE)
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", port))
            sock.sendall(head)
            while part := sock.recv(65536):
                answer += part
        if answer.startswith(b"HTTP/1.1 200"):
            took.append(time.perf_counter() - began)
        else:
            failed += 1
        time.sleep(PAUSE)
    out.put((path, summary(took) | {"failed": failed}))


def commands(command: list[str], until: float, out: Any) -> None:
    """Run a command again and again."""
    took, failed = [], 0
    while time.monotonic() < until:
        began = time.perf_counter()
        if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            failed += 1
        else:
            took.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    out.put(("probe command", summary(took) | {"failed": failed}))


def attack(port: int, host: str, says: bytes, rate: int, sources: list[str], until: float, out: Any) -> None:
    """Connect `rate` times a second from all sources in turn; say `says` on each connection, and keep it open."""
    _raise_descriptor_limit()
    epoll, held, made, spoken = select.epoll(), collections.OrderedDict[int, socket.socket](), 0, 0
    began = time.monotonic()

    def drop(descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            held.pop(descriptor).close()

    while (now := time.monotonic()) < until:
        for _ in range(min(200, int((now - began) * rate) - made)):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            with contextlib.suppress(BlockingIOError, OSError):
                sock.bind((sources[made % len(sources)], 0))
                sock.connect((host, port))
            held[sock.fileno()] = sock
            epoll.register(sock, select.EPOLLOUT if says else select.EPOLLRDHUP)
            made += 1
            if len(held) > MOST_HELD:
                drop(next(iter(held)))
        for descriptor, events in epoll.poll(0.001, 256):
            if descriptor in held and events == select.EPOLLOUT:
                with contextlib.suppress(OSError):
                    held[descriptor].send(says)
                    spoken += 1
                    epoll.modify(descriptor, select.EPOLLRDHUP)
            else:
                drop(descriptor)
    out.put(("attack", {"connections a second": round(made / (time.monotonic() - began)), "first messages": spoken}))


def summary(values: list[float]) -> Figures:
    """Median, 99th percentile and maximum, in milliseconds."""
    if len(values) < 2:
        return {"count": len(values)}
    cuts = statistics.quantiles(values, n=100)
    names = {"count": len(values), "median ms": cuts[49] * 1e3, "p99 ms": cuts[98] * 1e3, "max ms": max(values) * 1e3}
    return {name: round(value, 2) for name, value in names.items()}


def echo(listener: socket.socket) -> None:
    """Serve the target: send back what comes."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                sock.sendall(data)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


@contextlib.contextmanager
def listener(arguments: list[str], bind: str) -> Iterator[tuple[subprocess.Popen[bytes], int, PrivateKey, bytes]]:
    """A listening proxy with an echo server behind it: its process, its port, the key of an allowed peer, its public key."""
    target = socket.create_server(("127.0.0.1", 0), backlog=1024)
    FORK.Process(target=echo, args=(target,), daemon=True).start()
    own, server = PrivateKey.generate(), PrivateKey.generate()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        key = Path(folder) / "server.key"
        write_secret_file(key, format_private_key(server) + "\n")
        command: list[object] = [
            Path(sys.executable).with_name("stcp-proxy"),
            "listen",
            "--bind",
            f"{bind}:0",
            "--log-format",
            "json",
        ]
        command += ["--to", f"127.0.0.1:{target.getsockname()[1]}", "--key", key, "--allow", f"peer={own.public}", *arguments]
        process = subprocess.Popen(list(map(str, command)), stderr=log)
        try:
            yield process, _port_in(Path(folder) / "log"), own, server.public.raw
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port_in(log: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            said = json.loads(line)
            if said.get("event") == "listening":
                return int(said["address"].rpartition(":")[2])
        time.sleep(0.05)
    raise RuntimeError(f"the listener did not start: {log.read_text()}")


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def used(process: subprocess.Popen[bytes]) -> tuple[float, int]:
    """Seconds of processor time and resident KiB of a process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE") // 1024


def first_message(kind: str, own: PrivateKey, server: bytes) -> bytes:
    """What each connection of the attack says."""
    if kind in ("silent", "admin"):
        return b""
    if kind == "probes":
        return b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if kind == "prologue":
        return prologue(SUITE)
    if kind == "random":
        length = MESSAGE_1_LEN[SUITE]
        return prologue(SUITE) + length.to_bytes(2, "big") + secrets.token_bytes(length)
    return Initiator(SUITE, Credentials(static=KeyPair(own.secret)), remote_static=server).message_1()


def admin_options(folder: str, host: str) -> list[str]:
    """Options for an admin address of `host` with a token; port and token are in files of `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    (Path(folder) / "port").write_text(str(port))
    write_secret_file(Path(folder) / "token", secrets.token_hex(16) + "\n")
    return ["--admin", f"{host}:{port}", "--admin-token", f"{folder}/token"]


def enter_pod() -> None:
    """Run this tool again in a network namespace of its own, where all of 10.0.0.0/8 is this host."""
    inside = 'ip link set lo up && ip route add local 10.0.0.0/8 dev lo && exec "$@"'
    if "STCP_FLOOD_POD" not in os.environ:
        os.environ["STCP_FLOOD_POD"] = "1"
        os.execvp("unshare", ["unshare", "--net", "sh", "-ec", inside, "sh", sys.executable, *sys.argv])


def main() -> None:
    """Run one attack and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["none", "silent", "prologue", "random", "replay", "admin", "probes"])
    parser.add_argument("--rate", type=int, default=10_000, help="connections a second [default: 10000]")
    parser.add_argument("--sources", type=int, default=100, help="source networks [default: 100]")
    parser.add_argument("--seconds", type=float, default=10, help=f"at most {MOST_SECONDS} [default: 10]")
    parser.add_argument("--pod", action="store_true", help="attack from another pod, probe within this one (root)")
    parser.add_argument("--listen", default="", help="further options of stcp-proxy listen, in one string")
    options = parser.parse_args()
    if options.pod:
        enter_pod()
    at_admin = options.kind in ("admin", "probes")
    everywhere = "0.0.0.0" if options.pod else "127.0.0.1"
    seconds = min(options.seconds, MOST_SECONDS)
    out = FORK.SimpleQueue()
    with (
        tempfile.TemporaryDirectory() as folder,
        listener(options.listen.split() + admin_options(folder, everywhere if at_admin else "127.0.0.1"), everywhere) as found,
    ):
        process, port, own, server = found
        admin_port, token = int((Path(folder) / "port").read_text()), (Path(folder) / "token").read_text().strip()
        before, _ = used(process)
        until = time.monotonic() + 2 + seconds
        network, attacked = ("10", "10.200.0.1") if options.pod else ("127", "127.0.0.1")
        sources = [f"{network}.{1 + number // 250}.{1 + number % 250}.1" for number in range(options.sources)]
        says = b"" if options.kind == "none" else first_message(options.kind, own, server)
        work: list[tuple[Any, tuple[Any, ...]]] = []
        if not at_admin:
            work = [(newcomers, (port, own, server)), (round_trips, (port, own, server))]
        if at_admin or options.pod:
            asks, knows = ("127.0.0.1", "127.0.0.1") if options.pod else (HONEST, LIVE)
            work += [(requests, (admin_port, "/healthz", asks, "none")), (requests, (admin_port, "/status", knows, token))]
        if options.pod:
            probe = [str(Path(sys.executable).with_name("stcp-proxy")), "status", "--json", "--connections", "0"]
            probe += ["--admin", f"127.0.0.1:{admin_port}", "--admin-token", f"{folder}/token"]
            work.append((commands, (probe,)))
        if options.kind != "none":
            work.append((attack, (admin_port if at_admin else port, attacked, says, options.rate, sources)))
        children = [FORK.Process(target=run, args=(*args, until, out), daemon=True) for run, args in work]
        for child in children:
            child.start()
        results = []
        for child in children:
            child.join(seconds + 30)
            if child.is_alive():
                child.terminate()
        while not out.empty():
            results.append(out.get())
        after, resident = used(process)
    for name, figures in sorted(results):
        print(f"{name:<16}", "  ".join(f"{what} {value}" for what, value in figures.items()))
    print(f"{'listener':<16} processor seconds {after - before:.1f} of {seconds + 2:.0f}  resident MiB {resident // 1024}")


if __name__ == "__main__":
    main()
