"""A web server and iperf3 through the pair.

STCP_FULL_SIZE=1 pytest -q -s --timeout=900 tests/real/test_2_web.py
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.proxies import Pair
from harness.real import full_size, say
from harness.software import iperf3, nginx, require, run

KEEP_ALIVE = 20_000 if full_size() else 5_000
CLOSING = 2_000 if full_size() else 300
DOWNLOAD = (1 << 30) if full_size() else (128 << 20)
SMALL_CLIENTS = 32
SECONDS = 5 if full_size() else 1
BLOCK = 1 << 20


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Pair]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "small").write_bytes(random.Random(2).randbytes(1024))
    with nginx(tmp_path, root) as server, Pair(tmp_path, server.to) as pair:
        yield pair
        assert not pair.listen.log(level="error")
        assert not pair.connect.log(level="error")
    (root / "large").unlink(missing_ok=True)


def ab(pair: Pair, *flags: str) -> None:
    require("ab")
    out = run("ab", "-q", *flags, f"http://127.0.0.1:{pair.port}/small")
    figures = dict(re.findall(r"^([A-Z][\w -]+?):\s+([\d.]+)", out, re.MULTILINE))
    assert figures["Failed requests"] == "0", out
    assert "Non-2xx responses" not in figures, out
    assert "Write errors" not in figures, out
    say(f"ab {' '.join(flags)}: {figures['Complete requests']} requests, {figures['Requests per second']} a second, none failed")


def test_keep_alive(web: Pair) -> None:
    ab(web, "-k", "-c", "64", "-n", str(KEEP_ALIVE))


def test_connection_close(web: Pair) -> None:
    ab(web, "-H", "Connection: close", "-c", "64", "-n", str(CLOSING))
    web.listen.ended(CLOSING)
    assert not web.listen.log("connection refused")
    assert not web.connect.log("connection refused")


def test_large_download_beside_small_clients(web: Pair, tmp_path: Path) -> None:
    """One bulk connection neither loses a byte nor starves 32 that ask for a kilobyte at a time."""
    require("curl")
    expected = hashlib.sha256()
    block = random.Random(3).randbytes(BLOCK)
    with (tmp_path / "root" / "large").open("wb") as file:
        for number in range(DOWNLOAD // BLOCK):
            part = number.to_bytes(8, "big") + block[8:]
            expected.update(part)
            file.write(part)

    done = threading.Event()
    answered = [0] * SMALL_CLIENTS
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_small_client, args=(web.port, index, answered, failures, done)) for index in range(SMALL_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    received = hashlib.sha256()
    try:
        command = ["curl", "-sS", "--fail", f"http://127.0.0.1:{web.port}/large"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            assert curl.stdout is not None
            while part := curl.stdout.read(BLOCK):
                received.update(part)
        assert curl.returncode == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert received.digest() == expected.digest()
    assert not failures
    assert min(answered) > 0
    say(f"{DOWNLOAD >> 20} MiB by hash, meanwhile {sum(answered)} small requests, the slowest client {min(answered)}")


def _small_client(port: int, index: int, answered: list[int], failures: list[BaseException], done: threading.Event) -> None:
    expected = random.Random(2).randbytes(1024)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        while not done.is_set():
            connection.request("GET", "/small")
            assert connection.getresponse().read() == expected
            answered[index] += 1
            done.wait(0.01)
    except BaseException as exc:
        failures.append(exc)
    finally:
        connection.close()


def measure(pair: Pair, *flags: str) -> list[float]:
    """One iperf3 run through the pair: Gbit/s received, forth (and back, with --bidir)."""
    out = run("iperf3", "-c", "127.0.0.1", "-p", str(pair.port), "-t", str(SECONDS), "-J", *flags)
    result = json.loads(out)
    assert "error" not in result, result["error"]
    sums = ("sum_received", "sum_received_bidir_reverse")
    return [result["end"][name]["bits_per_second"] / 1e9 for name in sums if name in result["end"]]


def test_iperf3(tmp_path: Path) -> None:
    """One pair carries one iperf3 after the other: forth, back, and eight streams."""
    with iperf3(tmp_path) as server, Pair(tmp_path, server.to) as pair:
        for flags in ([], ["-R"], ["-P", "8"]):
            rates = measure(pair, *flags)
            assert rates[0] > 0
            say(f"iperf3 {' '.join(flags) or 'forth'}: {rates[0]:.2f} Gbit/s")


def test_iperf3_both_ways_at_once(tmp_path: Path) -> None:
    """iperf3 takes the order in which its two streams are accepted for the order in which they were opened. Two connections that
    are opened in the same instant may overtake each other in a proxy; then iperf3 sends both ways on one of them, reads neither,
    and its server is stuck: such a run is repeated from the start.
    """
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with iperf3(folder) as server, Pair(folder, server.to) as pair:
            rates = measure(pair, "--bidir")
            if min(rates) > 0:
                say(f"iperf3 --bidir: {rates[0]:.2f} and {rates[1]:.2f} Gbit/s")
                return
    raise AssertionError("iperf3 --bidir never got both directions going")
