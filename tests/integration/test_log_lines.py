"""What an operator reads: one line for a connection on each side, told from each other by the channel id, and no secret ever."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness.leaks import find_secret, forbid
from harness.process import wait_for
from harness.proxies import COMMAND, Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of, end_of_new, free_port, read_all, read_exactly

from stcp_proxy.keys import format_private_key
from stcp_proxy.protocol.secret import Secret


def ask(address: tuple[str, int] | str, words: bytes) -> None:
    with connect(address) as client:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == words


@pytest.mark.parametrize("psk", [False, True])
def test_one_line_for_a_connection_on_each_side(tmp_path: Path, psk: bool) -> None:
    with Target() as target, Pair(tmp_path, target.to, keys=Keys(tmp_path, psk=psk)) as pair:
        for size in (0, 1, 70_000, 300_000):
            ask(pair.address, bytes(size))
        here, there = pair.connect.ended(4), pair.listen.ended(4)
        assert len({line["channel"] for line in here}) == 4
        assert {line["channel"] for line in here} == {line["channel"] for line in there}
        for mine in here:
            (yours,) = (line for line in there if line["channel"] == mine["channel"])
            assert len(mine["channel"]) == 16
            assert mine["bytes_to_wire"] == yours["bytes_to_plain"] == mine["bytes_to_plain"] == yours["bytes_to_wire"]
            assert mine["reason"] == yours["reason"] == "finished"
            assert mine["engine"] == yours["engine"] == "python"
            assert mine["target"] == pair.listen.addresses[0]
            assert yours["target"] == target.to
            assert mine["seconds"] > 0
            for line in (mine, yours):
                assert {"tunnel", "client", "level", "timestamp"} <= line.keys()
                assert "warning" not in line["level"]
        assert {line["peer"] for line in there} == {"(shared secret)" if psk else "app-host"}
        assert sorted(line["bytes_to_wire"] for line in here) == [0, 1, 70_000, 300_000]
        time.sleep(0.1)
        assert len(pair.listen.log("connection closed")) == len(pair.connect.log("connection closed")) == 4


def test_wrong_key_is_explained_on_both_sides(tmp_path: Path) -> None:
    """The refused side reads what to look for, the refusing one whom it refused."""
    with Target() as target:
        keys = Keys(tmp_path)
        listen = ["listen", "--bind", "127.0.0.1:0", "--to", target.to, "--key", f"{tmp_path}/server.key"]
        allow = ["--allow", f"other={keys.stranger.public}"]
        with Proxy([*listen, *allow], log=tmp_path / "listen.log") as there:
            arguments = ["connect", "--bind", "127.0.0.1:0", "--to", there.addresses[0], *keys.connect()]
            with Proxy(arguments, log=tmp_path / "connect.log") as here:
                assert end_of_new(here.ready().address) == ("reset", b"")  # type: ignore[attr-defined]
                refused = there.refused(reason="unknown_peer")[0]
                assert refused["key"] == str(keys.client.public)
                told = here.refused(reason="handshake_closed")[0]
                assert "key" in told["remedy"]
        assert target.dials == 0


def test_text_logs(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, target.to) as pair:
        command = [*COMMAND, "connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *pair.keys.connect()]
        log = tmp_path / "text.log"
        with log.open("wb") as file, subprocess.Popen([*command, "--log-format", "text"], stderr=file) as process:
            wait_for(lambda: b"ready" in log.read_bytes(), words="ready")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert b"listening" in log.read_bytes()
        assert b"{" not in log.read_bytes()


def test_no_secret_at_the_finest_level(tmp_path: Path) -> None:
    """Everything goes wrong that can, at log level debug: `Proxy.stop` searches the logs."""
    debug = ["--log-level", "debug"]
    with Target() as target:
        for psk in (False, True):
            folder = tmp_path / str(psk)
            folder.mkdir()
            keys = Keys(folder, psk=psk)
            with Pair(folder, target.to, keys=keys, listen=debug, connect=debug) as pair:
                ask(pair.address, bytes(1000))
                for words in (b"STCP\x01\x01" + bytes(2000), b"GET / HTTP/1.0\r\n\r\n", b""):
                    with connect(pair.listen.address) as stranger:
                        stranger.sendall(words)
                        stranger.shutdown(socket.SHUT_WR)
                        assert end_of(stranger)[1] == b""
                wrong = ["--psk", f"{folder}/other.psk"] if psk else ["--key", f"{folder}/stranger.key"]
                peer = [] if psk else ["--peer", str(keys.server.public)]
                arguments = ["connect", "--bind", "127.0.0.1:0", "--to", pair.listen.addresses[0], *wrong, *peer, *debug]
                with Proxy(arguments, log=folder / "wrong.log") as proxy, connect(proxy.ready().address) as client:  # type: ignore[attr-defined]
                    assert end_of(client) == ("reset", b"")


def test_the_search_finds_a_secret(tmp_path: Path) -> None:
    """The net has no hole: every spelling that a log could hold is found."""
    secret = Secret(bytes(range(100, 132)))
    forbid(secret)
    raw = secret.reveal()
    key = format_private_key(Keys(tmp_path).server)
    for text in (raw, raw.hex().encode(), raw.hex().upper().encode(), repr(raw).encode(), key.encode(), json.dumps(key).encode()):
        assert find_secret(b"some words " + text + b" more") is not None
    assert find_secret(b'{"event": "ready"}') is None


def test_reader_of_the_log_goes_away(tmp_path: Path) -> None:
    """`stcp-proxy … 2>&1 | head`: connections matter more than their log lines."""
    with Target() as target, Pair(tmp_path, target.to) as pair:
        port = free_port()
        arguments = ["connect", "--bind", f"127.0.0.1:{port}", "--to", pair.listen.addresses[0], *pair.keys.connect()]
        with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            while b"ready" not in process.stderr.readline():
                pass
            process.stderr.close()
            with connect(("127.0.0.1", port)) as steady:
                for _ in range(3):
                    ask(("127.0.0.1", port), b"words")
                    steady.sendall(b"still")
                    assert read_exactly(steady, 5) == b"still"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


@pytest.mark.parametrize(("bind", "count"), [("0.0.0.0:0", 1), ("127.0.0.1:0", 0)])
def test_a_plain_leg_that_the_network_reaches_is_told_at_the_start(tmp_path: Path, bind: str, count: int) -> None:
    keys = Keys(tmp_path)
    with Proxy(["connect", "--bind", bind, "--to", "127.0.0.1:1", *keys.connect()], log=tmp_path / "log") as proxy:
        lines = proxy.ready().log("plain leg open to the network")
        assert [(line["level"], line["address"]) for line in lines] == [("warning", bind)] * count
