"""The lab's commands as a user types them."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import forked

COMMAND = [sys.executable, "-m", "stcp_proxy"]


def stcp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments)


@pytest.fixture
def echo() -> Iterator[str]:
    """Port of a running `stcp-proxy echo`."""
    with subprocess.Popen([*COMMAND, "echo", "--port", "0", "--threads", "2"], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield child.stdout.readline().rpartition(":")[2].strip()
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0


def test_stress_against_echo(echo: str, tmp_path: Path) -> None:
    pytest.importorskip("hdrh", reason="hdrhistogram is not installed")
    written = tmp_path / "out.json"
    done = stcp("stress", "--port", echo, "--mode", "churn", "--clients", "3", "--duration", "0.5", "--msg-size", "100",
                "--messages-per-conn", "7", "--timeout", "10", "--report-every", "0", "--json", str(written))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(written.read_text())["requests"] > 0
    assert "p99" in done.stdout


def test_stress_with_nobody_there_fails(tmp_path: Path) -> None:
    pytest.importorskip("hdrh", reason="hdrhistogram is not installed")
    done = stcp("stress", "--port", "1", "--clients", "1", "--duration", "0.2")
    assert done.returncode == 1
    assert "refused" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("bench", "--rows", "speed"), ("bench", "--peers", "carrier-pigeon"), ("bench", "--variant", "x"),
     ("bench", "--floor", "--ladder"), ("stress", "--key", "k", "--duration", "1"), ("stress", "--clients", "0")],
)  # fmt: skip
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = stcp(*arguments)
    assert done.returncode == 2
    assert done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the load generator")
def test_bench_measures_the_product(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    done = stcp("bench", "--rows", "rt-256x50,bulk-1", "--peers", "stcp,direct", "--rounds", "1", "--seconds", "0.2",
                "--json", str(written))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(written.read_text())
    assert {sample["peer"] for sample in content["samples"]} == {"stcp", "direct"}
    assert "256 B × 50" in done.stdout
