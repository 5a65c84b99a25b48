"""A proxy that somebody started from a terminal does not outlive it; elsewhere SIGHUP never ends one."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import COMMAND, Keys, Proxy
from harness.sockets import Target, free_port

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def arguments(folder: Path, to: str, workers: str, port: int) -> list[str]:
    return ["listen", "--bind", f"127.0.0.1:{port}", "--to", to, *Keys(folder).listen(), "--workers", workers]


@WORKERS
def test_terminal_that_is_closed(tmp_path: Path, echo: Target, workers: str) -> None:
    command = [*COMMAND, *arguments(tmp_path, echo.to, workers, free_port())]
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup make test` ignores it
        os.execvp(command[0], command)
    seen = b""
    while seen.count(b"ready") < int(workers):
        seen += os.read(terminal, 4096)
    os.close(terminal)
    wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, words="it has ended")


@WORKERS
def test_without_a_terminal_it_goes_on(tmp_path: Path, echo: Target, workers: str) -> None:
    command = arguments(tmp_path, echo.to, workers, free_port())
    with Proxy(command, log=tmp_path / "log", prefix=("setsid",)) as proxy:
        proxy.wait_log("ready", count=int(workers))
        proxy.signal(signal.SIGHUP)
        proxy.wait_log("reload refused: everything goes on as before")
        proxy.signal(signal.SIGTERM)
        assert proxy.wait() == 0
