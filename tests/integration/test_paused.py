"""A proxy that was paused goes on: deadlines that passed meanwhile say nothing about the other side."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from harness.peer import initiator
from harness.proxies import Keys, Proxy
from harness.sockets import Target, connect, read_exactly

from stcp_proxy.protocol.wire import MESSAGE_2_LEN, MESSAGE_LENGTH_LEN, Suite


@pytest.mark.parametrize("workers", [None, 2])
def test_a_handshake_whose_deadline_passes_in_the_pause(tmp_path: Path, echo: Target, workers: int | None) -> None:
    keys = Keys(tmp_path)
    flags = ["listen", "--bind", "127.0.0.1:0", "--to", echo.to, *keys.listen(), "--handshake-timeout", "2s"]
    if workers is not None:
        flags += ["--workers", str(workers)]
    with Proxy(flags, log=tmp_path / "log") as proxy:
        noise = initiator(keys)
        first = noise.message_1()
        with connect(proxy.ready().address) as sock:
            sock.sendall(first[:100])
            time.sleep(0.3)  # it has begun to read
            processes = [proxy.pid, *children(proxy.pid)]
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(5)  # more than the deadline and the slack of the clock
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.3)  # the proxy runs again, and by its own time the deadline is not over
            sock.sendall(first[100:])
            answer = read_exactly(sock, MESSAGE_LENGTH_LEN + MESSAGE_2_LEN[Suite.HYBRID_KEYS])
            assert noise.receive(answer) is not None


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
