"""`max_lifetime`: a connection ends in time though it is busy; the next one is served."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of, read_exactly


@pytest.mark.parametrize("side", ["listen", "connect"])
def test_a_busy_connection_ends(tmp_path: Path, echo: Target, side: str) -> None:
    with Pair(tmp_path, echo.to, **{side: ["--max-lifetime", "1s"]}) as pair:  # type: ignore[arg-type]
        for count in (1, 2):
            with connect(pair.address) as client:
                served = 0
                try:
                    while True:
                        client.sendall(b"x" * 1000)
                        if not read_exactly(client, 1000):
                            break
                        served += 1
                except (ConnectionResetError, BrokenPipeError):
                    pass
                else:
                    pytest.fail(f"no reset: {end_of(client)}")
                assert served > 0
            mine, theirs = (pair.listen, pair.connect) if side == "listen" else (pair.connect, pair.listen)
            line = mine.ended(count)[-1]
            assert (line["reason"], line["why"]) == ("aborted", "over its limit (max_lifetime)")
            assert line["remedy"] == "connect again; raise max_lifetime if connections may live longer"
            assert line["seconds"] >= 1
            line = theirs.ended(count)[-1]
            assert (line["reason"], line["why"]) == ("peer_reset", "over its limit (max_lifetime)")


def test_an_unfinished_opening_ends(tmp_path: Path) -> None:
    """The lifetime begins with accepting: a handshake that takes longer is refused, and says why."""

    def say_nothing(sock: socket.socket) -> None:
        while sock.recv(1 << 16):
            pass

    with Target(serve=say_nothing) as silent:
        keys = Keys(tmp_path)
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", silent.to, *keys.connect(), "--max-lifetime", "500ms"]
        with Proxy(arguments, log=tmp_path / "connect.log") as proxy, connect(proxy.ready().address) as client:
            client.settimeout(20)
            assert end_of(client)[0] == "reset"
            (line,) = proxy.refused(reason="lifetime_over")
            assert "max_lifetime" in line["why"]
