"""Redis and iperf3 through a pair of proxies whose connections the kernel carries; run by `inside`, not collected by name."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .peer import eventually, stat

TARGET, WIRE, ENTRY = 26379, 27443, 25379


def ready(port: int) -> None:
    def reachable() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    eventually(reachable, f"nobody listens on port {port}", 90)


@contextlib.contextmanager
def running(*argv: str, port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            ready(port)
            yield
        finally:
            process.terminate()
            process.wait(30)


def proxy(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "stcp_proxy", *words)


def public_key(path: Path) -> str:
    done = subprocess.run(proxy("keygen", "--out", str(path)), capture_output=True, text=True, check=True)
    return next(word for word in done.stdout.split() if word.startswith("stcp-pub:"))


@pytest.fixture
def pair(tmp_path: Path, engines: tuple[str, str]) -> Iterator[Path]:
    """A listen and a connect side between ENTRY and TARGET; yields the folder of their logs."""
    keys = {side: public_key(tmp_path / f"{side}.key") for side in ("listen", "connect")}
    here, wire, entry = (f"127.0.0.1:{port}" for port in (TARGET, WIRE, ENTRY))
    listen = proxy("listen", "--bind", wire, "--to", here, "--key", str(tmp_path / "listen.key"), "--allow", keys["connect"])
    connect = proxy("connect", "--bind", entry, "--to", wire, "--key", str(tmp_path / "connect.key"), "--peer", keys["listen"])
    with (
        running(*listen, "--engine", engines[0], "--log-format", "json", port=WIRE, log=tmp_path / "listen.log"),
        running(*connect, "--engine", engines[1], "--log-format", "json", port=ENTRY, log=tmp_path / "connect.log"),
    ):
        yield tmp_path


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


@pytest.mark.parametrize("engines", [("kernel", "kernel"), ("auto", "python")], ids=" and ".join)
def test_redis(pair: Path, engines: tuple[str, str]) -> None:
    server = ("redis-server", "--port", str(TARGET), "--save", "", "--appendonly", "no", "--dir", str(pair))
    with running(*server, port=TARGET, log=pair / "redis.log"):
        cli = ("redis-cli", "-p", str(ENTRY))
        value = "x" * 300_000
        assert subprocess.run([*cli, "-x", "set", "big"], input=value, capture_output=True, text=True).stdout == "OK\n"
        assert subprocess.run([*cli, "get", "big"], capture_output=True, text=True).stdout == value + "\n"
        for options in (("-c", "20"), ("-c", "5", "-P", "16"), ("-c", "5", "-d", "20000")):
            command = ["redis-benchmark", "-p", str(ENTRY), "-n", "1500", "-t", "set,get", "--csv", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=110)
            assert done.returncode == 0, done.stderr
            print(done.stdout.strip().replace("\n", " "))
    check_engines(pair, engines)
    assert stat()["EndBadFrame"] == stat()["EndInternalError"] == 0


@pytest.mark.parametrize("engines", [("kernel", "kernel")], ids=" and ".join)
@pytest.mark.parametrize("options", [(), ("-R",), ("-P", "4")], ids=" ".join)
def test_iperf3(pair: Path, engines: tuple[str, str], options: tuple[str, ...]) -> None:
    assert shutil.which("iperf3")
    before = stat()
    with running("iperf3", "-s", "-1", "-p", str(TARGET), port=WIRE, log=pair / "iperf.log"):
        time.sleep(1)  # it serves one client, so nobody may ask whether it listens
        command = ["iperf3", "-c", "127.0.0.1", "-p", str(ENTRY), "-t", "3", "-J", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
        answer = json.loads(done.stdout)
        assert "error" not in answer, answer["error"]
        received = answer["end"]["sum_received"]["bytes"]
        print(f"iperf3 {' '.join(options)}: {received / 3e6:.1f} MB/s")
        assert received > 1_000_000
    check_engines(pair, engines)
    assert stat()["BytesToPlain"] - before["BytesToPlain"] >= received
