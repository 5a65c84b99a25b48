"""Unmodified clients that know the server's own address and nothing else: what the wire shows, and what comes through."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.hosts import Net
from harness.process import Process, wait_for
from harness.sockets import Target, end_of, read_exactly, reset
from harness.software import require

from netns.sidecar import PORT, WIRE, Sidecar

HOW = pytest.mark.parametrize("how", ["redirect", "tproxy"])
WORD = b"a secret of the application: hunter2"


@pytest.fixture
def echo(net: Net) -> Iterator[Target]:
    """An unmodified server on every address of its host."""

    def bind() -> socket.socket:
        sock = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        sock.settimeout(None)
        return sock

    with Target(listener=net.server.do(bind)) as target:
        yield target


@HOW
def test_the_wire_carries_nothing_but_stcp(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how) as sidecar:
        with net.watch() as watch:
            for address in (net.server.ip4, net.server.ip6):
                with net.client.connect(address, PORT) as sock:
                    assert sock.getpeername()[:2] == (address, PORT)
                    sock.sendall(WORD)
                    assert read_exactly(sock, len(WORD)) == WORD
        lines = sidecar.connect.ended(2)
        assert {line["original"] for line in lines} == {f"{net.server.ip4}:{PORT}", f"[{net.server.ip6}]:{PORT}"}
        assert {line["peer"] for line in lines} == {"server"}
    assert watch.dialled == {(net.server.ip4, WIRE)}
    assert b"STCP\x01" in watch.payload()
    assert b"hunter2" not in watch.raw


@HOW
def test_a_new_process_takes_over(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    """The listening sockets of an intercepting tunnel change hands, transparent ones included; a live connection stays."""
    at = Path(f"/tmp/stcp-takeover-{os.getpid()}-{how}.sock")
    with Sidecar(net, tmp_path, how, more=f"takeover: unix:{at}\n") as sidecar, net.client.connect(net.server.ip4, PORT) as sock:
        sock.sendall(WORD)
        assert read_exactly(sock, len(WORD)) == WORD
        old = sidecar.connect
        sidecar.start("--replace", log="new.log")
        sidecar.connect.wait_log("took over from the old process")
        old.wait_log("draining: a new process serves")
        for address in (net.server.ip4, net.server.ip6):
            with net.client.connect(address, PORT) as other:
                other.sendall(WORD)
                assert read_exactly(other, len(WORD)) == WORD
        assert {line["original"] for line in sidecar.connect.ended(2)} == {
            f"{net.server.ip4}:{PORT}",
            f"[{net.server.ip6}]:{PORT}",
        }
        sock.sendall(WORD)
        assert read_exactly(sock, len(WORD)) == WORD
        sock.close()
        assert old.wait() == 0
    assert not at.exists()


@HOW
def test_redis_and_its_client_know_nothing_of_it(net: Net, tmp_path: Path, how: str) -> None:
    require("redis-server", "redis-cli")
    command = ["redis-server", "--port", str(PORT), "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""]
    folder = tmp_path / "redis"
    folder.mkdir()
    with (
        Process([*net.server.prefix, *command, "--dir", str(folder)], output=folder / "log") as redis,
        Sidecar(net, tmp_path, how),
    ):
        wait_for(lambda: "Ready to accept" in redis.text(), words="Redis is ready")
        with net.watch() as watch:
            for address in (net.server.ip4, net.server.ip6):
                client = ("redis-cli", "-h", address, "-p", str(PORT))
                assert net.client.run(*client, "set", "hunter2", "x" * 100_000, timeout=20).stdout == "OK\n"
                assert net.client.run(*client, "strlen", "hunter2", timeout=20).stdout == "100000\n"
        assert watch.dialled == {(net.server.ip4, WIRE)}
        assert b"hunter2" not in watch.raw
        assert b"xxxxxxxx" not in watch.raw


@HOW
def test_ends_and_resets_are_what_they_are(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how) as sidecar:
        with net.client.connect(net.server.ip4, PORT) as sock:
            sock.sendall(WORD)
            sock.shutdown(socket.SHUT_WR)
            assert end_of(sock) == ("eof", WORD)
        sock = net.client.connect(net.server.ip6, PORT)
        sock.sendall(WORD)
        assert read_exactly(sock, len(WORD)) == WORD
        reset(sock)
        sidecar.connect.ended(reason="plain_reset")
        sidecar.listen.ended(reason="peer_reset")


@HOW
def test_without_the_proxy_nothing_leaves(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how) as sidecar:
        sidecar.connect.stop()
        with net.watch() as watch:
            for address in (net.server.ip4, net.server.ip6):
                with pytest.raises(ConnectionRefusedError):
                    net.client.connect(address, PORT)
        assert watch.segments == []
        sidecar.start()
        with net.client.connect(net.server.ip4, PORT) as sock:
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
    assert echo.dialled(1)


@HOW
def test_a_thousand_connections_lose_none(net: Net, echo: Target, tmp_path: Path, how: str) -> None:
    with Sidecar(net, tmp_path, how) as sidecar:
        wrong: list[object] = []

        def many(first: int) -> None:
            for number in range(first, first + 125):
                word = b"%d of a thousand" % number
                try:
                    with socket.create_connection(((net.server.ip4, net.server.ip6)[number % 2], PORT), timeout=30) as sock:
                        sock.sendall(word)
                        sock.shutdown(socket.SHUT_WR)
                        if end_of(sock) != ("eof", word):
                            wrong.append(number)
                except OSError as exc:
                    wrong.append((number, exc))

        with net.watch() as watch:
            threads = [threading.Thread(target=net.client.do, args=(lambda at=at: many(at),)) for at in range(0, 1000, 125)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert len(sidecar.connect.ended(1000, reason="finished")) == 1000
    assert watch.dialled == {(net.server.ip4, WIRE)}
    assert echo.dialled(1000)


# -- what no route covers ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def other_server(net: Net) -> Iterator[Target]:
    with Target(listener=net.server.listener(net.server.ip4, PORT + 1)) as target:
        yield target


def refused(net: Net, host: str, port: int) -> bool:
    """Whether a connection gets a reset and nothing else; it may come before the first word is out."""
    try:
        with net.client.connect(host, port) as sock:
            sock.sendall(WORD)
            return end_of(sock) == ("reset", b"")
    except (ConnectionResetError, BrokenPipeError):
        return True


@HOW
def test_what_no_route_covers_is_refused(net: Net, tmp_path: Path, how: str) -> None:
    with other_server(net) as target, Sidecar(net, tmp_path, how) as sidecar:
        with net.watch() as watch:
            assert refused(net, net.server.ip4, PORT + 1)
        line = sidecar.connect.refused(reason="no_route")[0]
        assert f"no route covers {net.server.ip4}:{PORT + 1}" in line["why"]
        assert watch.segments == []
        assert target.dials == 0


@HOW
def test_it_is_passed_on_where_the_file_says_so(net: Net, tmp_path: Path, how: str) -> None:
    settings = "    unmatched: pass-in-the-clear\n"
    with other_server(net) as target, Sidecar(net, tmp_path, how, settings=settings) as sidecar:
        with net.watch() as watch, net.client.connect(net.server.ip4, PORT + 1) as sock:
            sock.sendall(WORD)
            sock.shutdown(socket.SHUT_WR)
            assert end_of(sock) == ("eof", WORD)
        line = sidecar.connect.ended(engine="none: unencrypted")[0]
        assert (line["reason"], line["bytes_to_wire"], line["bytes_to_plain"]) == ("finished", len(WORD), len(WORD))
        assert watch.dialled == {(net.server.ip4, PORT + 1)}
        assert target.dialled(1)
        assert sidecar.connect.log("unmatched connections leave this host unencrypted")

        sock = net.client.connect(net.server.ip4, PORT + 1)
        sock.sendall(WORD)
        assert read_exactly(sock, len(WORD)) == WORD
        reset(sock)
        sidecar.connect.ended(engine="none: unencrypted", reason="plain_reset")


# -- loops -----------------------------------------------------------------------------------------------------------------------


@HOW
@pytest.mark.parametrize("settings", ["", "    unmatched: pass-in-the-clear\n"], ids=["refuse", "pass"])
def test_a_tunnel_that_is_dialled_itself_refuses(net: Net, tmp_path: Path, how: str, settings: str) -> None:
    with Sidecar(net, tmp_path, how, settings=settings) as sidecar:
        for address in ("127.0.0.1", "::1"):
            assert refused(net, address, 15001)
        for line in sidecar.connect.refused(2, reason="not_intercepted"):
            assert "dial" in line["why"]
            assert "stcp-proxy intercept --apply" in line["remedy"]


@pytest.mark.parametrize("settings", ["", "    unmatched: pass-in-the-clear\n"], ids=["refuse", "pass"])
def test_rules_for_another_user_make_no_loop(net: Net, echo: Target, tmp_path: Path, settings: str) -> None:
    """The proxy's own connections are sent back to it, for the peer is not known to the rules by its number.

    Connection tracking remembers the connections of earlier tests. NAT gives a new one another port if one of these had the same,
    and the proxy does not recognise it then.
    """
    require("conntrack")
    net.client.run("conntrack", "-F", check=False)
    net.client.names({"peer.internal": net.server.ip4})
    with Sidecar(net, tmp_path, "redirect", at="peer.internal", settings=settings, spared=1) as sidecar:
        with net.watch() as watch:
            address = (net.server.ip4, PORT + 1) if settings else (net.server.ip6, PORT)
            assert refused(net, *address)
        lines = sidecar.connect.refused(reason="own_connection")
        assert "--uid" in lines[0]["remedy"]
        assert len(sidecar.connect.log("connection refused")) <= 3
        assert watch.segments == []
