"""The verdict and the last hour with real proxies: a target that returns, a name that never resolves, an unknown key."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from harness.admin import Admin
from harness.process import wait_for
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, free_port, read_all, read_exactly

ADMIN = ["--admin", "127.0.0.1:0"]


def refused(address: Any) -> None:
    """A connection that nobody serves."""
    with connect(address) as sock, contextlib.suppress(ConnectionResetError):
        read_all(sock)


def headline(admin: Admin, words: str) -> dict[str, Any]:
    """The verdict, once it has this headline."""
    found: dict[str, Any] = admin.wait_status(lambda status: status["verdict"]["headline"] == words, words)["verdict"]
    return found


def test_a_target_that_fails_and_returns(tmp_path: Path) -> None:
    """On both sides it is one fault, with the remedy of its own cause; then it says that it is over."""
    port = free_port()
    with Pair(tmp_path, f"127.0.0.1:{port}", listen=ADMIN, connect=ADMIN) as pair:
        here, there = Admin(pair.listen), Admin(pair.connect)
        for admin in (here, there):
            assert headline(admin, "All is well")["faults"] == []
        for _ in range(3):
            refused(pair.address)
        (fault,) = headline(here, "The tunnel has no target")["faults"]
        assert fault["what"] == ["Tunnel ", "listen", " has no target: ", f"127.0.0.1:{port}", " (", "connection refused", ")"]
        assert fault["remedy"] == "check that the program is running and listens there"
        (fault,) = headline(there, "The tunnel has no target")["faults"]
        assert fault["remedy"] == "start the peer's target, or correct the address in the peer's 'to'"
        assert fault["until"] is None
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        with Target(listener=listener):

            def served() -> bool:
                with connect(pair.address) as sock, contextlib.suppress(ConnectionResetError):
                    sock.sendall(b"x")
                    return sock.recv(1) == b"x"
                return False

            wait_for(served, words="the target serves again")
            for admin in (here, there):
                verdict = headline(admin, "All is well again")
                assert verdict["level"] == "ok"
                (over,) = verdict["faults"]
                assert over["until"] > over["since"]


def test_a_name_that_never_resolves_is_shown(tmp_path: Path) -> None:
    with Pair(tmp_path, "no-such-name.invalid:80", listen=ADMIN) as pair:
        admin = Admin(pair.listen)
        (target,) = admin.status()["tunnels"][0]["targets"]
        assert (target["address"], target["health"]) == ("no-such-name.invalid:80", "unknown")
        refused(pair.address)
        (fault,) = headline(admin, "The tunnel has no target")["faults"]
        assert "cannot resolve no-such-name.invalid" in "".join(fault["what"])
        assert "correct the name" in fault["remedy"]
        (target,) = admin.status()["tunnels"][0]["targets"]
        assert (target["address"], target["health"]) == ("no-such-name.invalid:80", "down")


def test_an_unknown_key_is_a_fault_with_its_key(tmp_path: Path, echo: Target) -> None:
    keys = Keys(tmp_path)
    with Pair(tmp_path, echo.to, keys=keys, listen=ADMIN) as pair:
        admin = Admin(pair.listen)
        flags = ["--key", str(keys.folder / "stranger.key"), "--peer", str(keys.server.public)]
        arguments = ["connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *flags]
        with Proxy(arguments, log=tmp_path / "stranger.log") as proxy:
            refused(proxy.ready().address)
        (fault,) = headline(admin, "The tunnel refuses connections")["faults"]
        assert fault["public_key"] == str(keys.stranger.public)
        assert fault["level"] == "warn"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_hour_is_kept_without_anybody_looking(tmp_path: Path, echo: Target, workers: int) -> None:
    """With several worker processes the points are those of all of them."""
    many = ["--workers", str(workers)] if workers > 1 else []
    with Pair(tmp_path, echo.to, listen=[*ADMIN, *many]) as pair, contextlib.ExitStack() as stack:
        admin = Admin(pair.listen)
        for _ in range(8):
            sock = stack.enter_context(connect(pair.address))
            sock.sendall(b"x" * 1000)
            assert read_exactly(sock, 1000)

        def past() -> Any:
            status, body = admin.ask("/history")
            assert status == 200
            found = json.loads(body)
            return found if found["times"] and found["series"][0]["open"][-1] == 8 else None

        found = wait_for(past, words="a point with all connections", timeout=40)
        total, tunnel = found["series"]
        assert (total["tunnel"], tunnel["tunnel"]) == ("", "listen")
        assert total == {**tunnel, "tunnel": ""}
        assert sum(rate or 0 for rate in total["to_wire"]) * found["step"] == pytest.approx(8000, rel=0.2)
        assert admin.ask("/history?points=1")[1].count("[") >= 5
        assert admin.ask("/history?points=361")[0] == 400
        assert [each["tunnel"] for each in json.loads(admin.ask("/history?tunnel=nope")[1])["series"]] == [""]
