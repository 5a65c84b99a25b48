"""No signal kills a proxy without a word, from its first instant on, and a stop is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import COMMAND, Keys
from harness.sockets import free_port

from stcp_proxy.process import signals

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
HARMLESS = (signal.SIGUSR1, signal.SIGALRM, signal.SIGPROF, signal.SIGIO, signal.SIGRTMIN + 3, signal.SIGHUP)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    keys = Keys(tmp_path)
    path = tmp_path / "proxy.yaml"
    path.write_text(
        f"identity: {keys.folder}/server.key\n"
        "tunnels:\n"
        f"  in: {{mode: listen, bind: '127.0.0.1:{free_port()}', to: '127.0.0.1:{free_port()}', allow: '{keys.client.public}'}}\n"
    )
    return path


def start(config: Path, *more: str, prefix: tuple[str, ...] = ()) -> tuple[subprocess.Popen[bytes], Path]:
    log = config.with_name("log")
    with open(log, "wb") as file:
        return subprocess.Popen([*prefix, *COMMAND, "run", str(config), *more], stderr=file), log


def ready(process: subprocess.Popen[bytes], log: Path) -> None:
    wait_for(lambda: '"ready"' in log.read_text() or process.poll() is not None, words="ready, or ended")
    assert process.poll() is None, log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_other_signal_ends_a_proxy_that_serves(config: Path, workers: int) -> None:
    config.write_text(f"workers: {workers}\n" + config.read_text())
    process, log = start(config)
    try:
        ready(process, log)
        for number in HARMLESS:
            process.send_signal(number)
        wait_for(lambda: '"reloaded"' in log.read_text(), words="SIGHUP reloads behind them")
        wait_for(lambda: log.read_text().count('"signal ignored"') >= len(HARMLESS) - 1, words="the others are logged")
        process.send_signal(signal.SIGQUIT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", HARMLESS, ids=lambda number: signals.name(number))
def test_nor_in_its_first_moments(config: Path, number: int) -> None:
    """Sent again and again while it starts; a SIGHUP of that time is a reload when it serves."""
    process, log = start(config)
    try:
        wait_for(lambda: not _dies_of(process.pid, number), words="the first line of the program has run")
        while '"ready"' not in log.read_text():
            assert process.poll() is None, log.read_text()
            process.send_signal(number)
            time.sleep(0.005)
        if number == signal.SIGHUP:
            wait_for(lambda: '"reloaded"' in log.read_text(), words="what was held back is acted upon")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def _dies_of(pid: int, number: int) -> bool:
    """Whether a signal would kill a process: it is not blocked, ignored or handled."""
    return not any(_has(pid, number, which) for which in ("SigBlk", "SigIgn", "SigCgt"))


def _has(pid: int, number: int, which: str) -> bool:
    """Whether a signal is in one of the sets of a process."""
    words = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Sig"))
    return bool(int(words[which], 16) & 1 << (number - 1))


@needs_root
@pytest.mark.parametrize("application", [(), ("--", "sleep", "60")], ids=["alone", "with an application"])
def test_a_stop_is_not_lost_on_pid_1(config: Path, application: tuple[str, ...]) -> None:
    """As soon as the program has handlers: before that no program can hear anything."""
    prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    for delay in (0.0, 0.05, 0.15, 0.3, 0.6):
        _stop_pid_1_after(delay, *start(config, *application, prefix=prefix))


def _stop_pid_1_after(delay: float, process: subprocess.Popen[bytes], _log: Path) -> None:
    try:
        (inner,) = wait_for(lambda: _children(process.pid), words="PID 1 of the namespace")
        wait_for(lambda: _has(inner, signal.SIGTERM, "SigCgt"), words="the first line of the program has run")
        time.sleep(delay)
        os.kill(inner, signal.SIGTERM)
        assert process.wait(10) in (0, 128 + signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_root
def test_a_stop_before_the_first_line_of_pid_1_waits_where_a_launcher_blocks_it(config: Path) -> None:
    """As the entry point of the image does."""
    launcher = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "env", "--block-signal=TERM")
    process, _ = start(config, prefix=launcher)
    try:
        (inner,) = wait_for(lambda: _children(process.pid), words="PID 1 of the namespace")
        wait_for(lambda: b"python" in Path(f"/proc/{inner}/cmdline").read_bytes()[:200].split(b"\0")[0], words="python starts")
        os.kill(inner, signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", [["demo"], ["doctor"]])
def test_a_command_that_does_not_serve_ends_at_once(command: list[str]) -> None:
    process = subprocess.Popen(
        ["env", "--block-signal=TERM", *COMMAND, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.3)
        process.terminate()
        assert process.wait(10) != 0
    finally:
        process.kill()
        process.wait()


def test_a_stop_ends_a_start_that_hangs(config: Path) -> None:
    fifo = config.with_name("fifo")
    os.mkfifo(fifo)
    process = subprocess.Popen([*COMMAND, "run", str(fifo)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _has(process.pid, signal.SIGTERM, "SigCgt"), words="the first line of the program has run")
        process.terminate()
        assert process.wait(10) in (2, 128 + signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def test_the_application_starts_with_signals_as_they_were(config: Path) -> None:
    # Without 32 and 33, which the C library ignores in what it spawns.
    show = "print([int(line[8:], 16) & ~(3 << 31) for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')])"
    direct = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, timeout=30).stdout
    beside = subprocess.run(
        [*COMMAND, "run", str(config), "--", sys.executable, "-c", show], capture_output=True, text=True, timeout=60
    ).stdout
    assert beside == direct
