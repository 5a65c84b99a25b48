"""Redis through the pair: benchmark, pipelining, mass insertion, large values.

STCP_FULL_SIZE=1 pytest -q -s --timeout=900 tests/real/test_1_redis.py
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.proxies import Pair
from harness.real import full_size, say
from harness.sockets import connect, read_exactly
from harness.software import redis, require, run

REQUESTS = 100_000 if full_size() else 5_000
VALUE = 64 << 20
KEYS = 100_000


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    require("redis-benchmark", "redis-cli")
    with redis(tmp_path) as server, Pair(tmp_path, server.to) as pair:
        yield pair
        assert not pair.listen.log(level="error")
        assert not pair.connect.log(level="error")


@pytest.mark.parametrize("pipeline", [1, 64])
def test_benchmark(pair: Pair, pipeline: int) -> None:
    """Every command that redis-benchmark knows, 50 connections."""
    out = run("redis-benchmark", "-p", str(pair.port), "-n", str(REQUESTS), "-c", "50", "-P", str(pipeline), "-q")
    assert "error" not in out.lower(), out
    rates = re.findall(r"^(.+?): ([\d.]+) requests per second", out.replace("\r", "\n"), re.MULTILINE)
    assert len(rates) >= 15, out
    for name, rate in rates:
        if name in ("PING_MBULK", "SET", "GET", "LRANGE_600 (first 600 elements)"):
            say(f"-P {pipeline}: {name}: {float(rate):,.0f} requests/s")


def test_mass_insertion(pair: Pair, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    with commands.open("wb") as file:
        for n in range(KEYS):
            key, value = b"key:%d" % n, b"value:%d" % n
            file.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value))
    with commands.open("rb") as file:
        out = run("redis-cli", "-p", str(pair.port), "--pipe", stdin=file)
    assert f"errors: 0, replies: {KEYS}" in out
    assert run("redis-cli", "-p", str(pair.port), "dbsize").strip() == str(KEYS)
    assert run("redis-cli", "-p", str(pair.port), "get", f"key:{KEYS - 1}").strip() == f"value:{KEYS - 1}"


def test_large_value(pair: Pair) -> None:
    """64 MB there and back, compared by hash."""
    value = random.Random(1).randbytes(VALUE)
    with connect(pair.address) as sock:
        sock.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % VALUE + value + b"\r\n")
        assert read_exactly(sock, 5) == b"+OK\r\n"
        sock.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n")
        head = b"$%d\r\n" % VALUE
        assert read_exactly(sock, len(head)) == head
        back = read_exactly(sock, VALUE + 2)
    assert back[-2:] == b"\r\n"
    assert hashlib.sha256(back[:-2]).digest() == hashlib.sha256(value).digest()
