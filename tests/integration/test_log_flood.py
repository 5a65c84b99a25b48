"""Strangers who come in numbers cost a bounded number of log lines, and every one of them is counted."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.proxies import Keys, Proxy, times
from harness.sockets import Target, connect, end_of

from stcp_proxy.logs.rate_limit import AT_ONCE

STRANGERS = 300


def knock(address: tuple[str, int] | str) -> None:
    with connect(address) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        end_of(sock)  # a reset: nobody reads what follows the first wrong byte


def test_a_flood_of_refused_handshakes(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with Target() as target:
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen()]
        with Proxy(arguments, log=tmp_path / "listen.log").ready() as proxy:
            started = time.monotonic()
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(knock, [proxy.address] * STRANGERS))
            seconds = time.monotonic() - started
            lines = proxy.refused(STRANGERS, reason="not_stcp")  # the last of them too, though no other event follows
            assert times(lines) == STRANGERS
            assert len(lines) <= (seconds + 2) * AT_ONCE
            assert "times" not in lines[0]
            assert "HTTP" in lines[-1]["why"]
            assert lines[-1]["remedy"]


def test_what_was_kept_back_is_said_at_the_stop(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    arguments = ["listen", "--bind", "127.0.0.1:0", "--to", "127.0.0.1:1", *keys.listen()]
    with Proxy(arguments, log=tmp_path / "listen.log").ready() as proxy:
        for _ in range(AT_ONCE * 3):
            knock(proxy.address)
        proxy.stop()
        assert times(proxy.log("connection refused")) == AT_ONCE * 3


def test_quiet(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with Target() as target:
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, *keys.listen(), "--quiet", "handshake-errors"]
        with Proxy(arguments, log=tmp_path / "listen.log").ready() as proxy:
            knock(proxy.address)
            proxy.stop()
            assert not proxy.log("connection refused")
            assert proxy.log("stopped", refused=1)
