"""Redis and iperf3 through a pair of proxies whose connections the kernel carries; run by `inside`, not collected by name."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from harness.certificates import TestAuthority

from stcp_proxy import keys

from .peer import eventually, stat

TARGET, WIRE, ENTRY = 26379, 27443, 25379


START: Final = 300.0
"""Seconds that a proxy may take to start: an emulated processor needs one minute to import one, and more where it is busy."""


def ready(port: int) -> None:
    deadline = time.monotonic() + START
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert time.monotonic() < deadline, f"nobody listens on port {port}"
        time.sleep(0.5)


@contextlib.contextmanager
def running(*argv: str, log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            yield
        finally:
            process.kill()


def key(path: Path) -> str:
    private = keys.PrivateKey.generate()
    keys.write_secret_file(path, keys.format_private_key(private) + "\n")
    return str(private.public)


CERTIFIED: Final = ("auto", "python")
"""The engines of the pair that authenticates by certificates, so by suite 5; the other pair has keys."""
NAMES: Final = {"listen": "dns:db.prod.internal", "connect": "spiffe://prod/ns/web/sa/app"}


@pytest.fixture(scope="module", params=[("kernel", "kernel"), CERTIFIED], ids=" and ".join)
def engines(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Engines of the listen and of the connect side."""
    chosen: tuple[str, str] = request.param
    return chosen


Identities = tuple[dict[str, str], dict[str, tuple[str, ...]]]
"""How each side is named by the other one, and the flags of its identity."""


def by_keys(folder: Path) -> Identities:
    files = {side: folder / f"{side}.key" for side in NAMES}
    return {side: key(path) for side, path in files.items()}, {side: ("--key", str(path)) for side, path in files.items()}


def by_certificates(folder: Path) -> Identities:
    authority = TestAuthority()
    authority.bundle(folder / "ca.crt")
    flags = {}
    for side, name in NAMES.items():
        authority.issue(name).write(folder, side)
        files = ("--certificate", f"{folder}/{side}.crt", "--certificate-key", f"{folder}/{side}-tls.key")
        flags[side] = (*files, "--authority", f"prod={folder}/ca.crt")
    return NAMES, flags


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, engines: tuple[str, str]) -> Iterator[Path]:
    """A listen and a connect side between ENTRY and TARGET; yields the folder of their logs."""
    folder = tmp_path_factory.mktemp("pair")
    peers, identities = by_certificates(folder) if engines == CERTIFIED else by_keys(folder)
    here, wire, entry = (f"127.0.0.1:{port}" for port in (TARGET, WIRE, ENTRY))
    common = ("--log-format", "json")
    sides = {
        "listen": ("--bind", wire, "--to", here, "--allow", peers["connect"], "--engine", engines[0]),
        "connect": ("--bind", entry, "--to", wire, "--peer", peers["listen"], "--engine", engines[1]),
    }
    with contextlib.ExitStack() as stack:
        for side, words in sides.items():
            command = (sys.executable, "-m", "stcp_proxy", side, *words, *identities[side], *common)
            stack.enter_context(running(*command, log=folder / f"{side}.log"))
        ready(WIRE)
        ready(ENTRY)
        yield folder


def closed(folder: Path, side: str) -> list[dict[str, object]]:
    """What a side's log says of its connections' ends."""
    lines = (json.loads(line) for line in (folder / f"{side}.log").read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == "connection closed"]


def check_engines(folder: Path, engines: tuple[str, str]) -> None:
    """Every connection that carried bytes was carried by the engine that was asked for, and ended as it should."""
    for side, engine in zip(("listen", "connect"), engines, strict=True):
        eventually(lambda side=side: bool(closed(folder, side)), "no connection has ended")  # type: ignore[misc]
        for line in closed(folder, side):
            assert line["engine"] == ("python" if engine == "python" else "kernel"), line
            assert "why_engine" not in line, line
            assert line.get("authority") == ("prod" if engines == CERTIFIED else None), line


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """A server that reads to the end of the question, gives it back, and closes."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    data = b""
                    while chunk := sock.recv(65536):
                        data += chunk
                    sock.sendall(data)

    with socket.create_server(("127.0.0.1", TARGET)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.timeout(900)
def test_kept_wire_legs(pair: Path, engines: tuple[str, str]) -> None:
    """Short connections, one after the other, go over the wire legs of those before."""
    before, count = stat(), 40
    with answering():
        for number in range(count):
            data = b"%d " % number * 3000
            with socket.create_connection(("127.0.0.1", ENTRY), timeout=60) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                with sock.makefile("rb") as answer:
                    assert answer.read() == data
    eventually(lambda: len(closed(pair, "connect")) >= count, "connections are open")
    check_engines(pair, engines)
    kept = [line for line in closed(pair, "connect") if line.get("leg") == "kept"]
    print(f"{len(kept)} of {count} connections over kept legs")
    assert len(kept) >= count // 2
    kernels = sum(engine != "python" for engine in engines)
    assert stat()["LegsGivenBack"] - before["LegsGivenBack"] >= kernels * len(kept)


@pytest.mark.timeout(900)
def test_redis(pair: Path, engines: tuple[str, str]) -> None:
    before = stat()  # the module's own tests, run before this in the same machine, end many in just these ways
    server = ("redis-server", "--port", str(TARGET), "--save", "", "--appendonly", "no", "--dir", str(pair))
    with running(*server, log=pair / "redis.log"):
        ready(TARGET)
        cli = ("redis-cli", "-p", str(ENTRY))
        value = "x" * 300_000
        assert subprocess.run([*cli, "-x", "set", "big"], input=value, capture_output=True, text=True).stdout == "OK\n"
        assert subprocess.run([*cli, "get", "big"], capture_output=True, text=True).stdout == value + "\n"
        for options in (("-c", "20"), ("-c", "5", "-P", "16"), ("-c", "5", "-d", "20000")):
            command = ["redis-benchmark", "-p", str(ENTRY), "-n", "500", "-t", "set,get", "--csv", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=110)
            assert done.returncode == 0, done.stderr
            print(done.stdout.strip().replace("\n", " "))
    check_engines(pair, engines)
    for end in ("EndBadFrame", "EndInternalError"):
        assert stat()[end] == before[end], end


@pytest.mark.timeout(900)
@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4")], ids=" ".join)
def test_iperf3(pair: Path, engines: tuple[str, str], options: tuple[str, ...]) -> None:
    assert shutil.which("iperf3")
    before = stat()
    with running("iperf3", "-s", "-p", str(TARGET), log=pair / "iperf.log"):
        ready(TARGET)
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(ENTRY), "-t", "3", "-J", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        answer = json.loads(done.stdout)
        assert "error" not in answer, answer["error"]
        received = answer["end"]["sum_received"]["bytes"]
        print(f"iperf3 {' '.join(options)}: {received / 3e6:.1f} MB/s")
        assert received > 1_000_000
    check_engines(pair, engines)
    assert sum(stat()[name] - before[name] for name in ("BytesToPlain", "BytesToWire")) >= received
