"""SIGTERM and SIGINT: nothing new is taken, what is under way may finish, the rest is told why, and the status says whether there
was any.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness.process import wait_for
from harness.proxies import Pair, Proxy
from harness.sockets import Target, connect, end_of, read_all, talk


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Target() as target, Pair(tmp_path, target.to, listen=["--drain", "1"], connect=["--drain", "1"]) as pair:
        yield pair


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Pair]:
    with Target() as target, Pair(tmp_path, target.to, listen=["--drain", "60"], connect=["--drain", "60"]) as pair:
        yield pair


def side(pair: Pair, name: str) -> tuple[Proxy, Proxy]:
    """The side that is stopped, and the other."""
    return (pair.listen, pair.connect) if name == "listen" else (pair.connect, pair.listen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["listen", "connect"])
def test_idle_proxy_ends_at_once(patient: Pair, name: str, number: signal.Signals) -> None:
    stopped, other = side(patient, name)
    stopped.signal(number)
    assert stopped.wait() == 0
    assert stopped.log("stopped", cut_off=0)
    assert other.status is None


def test_silent_stranger_does_not_hold_it_up(patient: Pair) -> None:
    """It would have ten seconds for its handshake."""
    with socket.create_connection(("127.0.0.1", patient.listen.port)) as stranger:
        wait_for(lambda: talks(patient), words="the pair works beside the stranger")
        start = time.monotonic()
        patient.listen.signal(signal.SIGTERM)
        assert patient.listen.wait() == 0
        assert time.monotonic() - start < 8
        assert end_of(stranger)[1] == b""
    assert patient.listen.refused(reason="shutting_down")


def talks(pair: Pair) -> bool:
    with connect(pair.address) as client:
        talk(client)
    return True


@pytest.mark.parametrize("name", ["listen", "connect"])
def test_connections_finish(patient: Pair, name: str) -> None:
    stopped, other = side(patient, name)
    with connect(patient.address) as client:
        talk(client)
        stopped.signal(signal.SIGTERM)
        stopped.wait_log("stopping")
        with pytest.raises(ConnectionRefusedError):
            connect(stopped.address)
        for _ in range(10):
            talk(client)
            time.sleep(0.01)
        assert stopped.status is None
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert stopped.wait() == 0
    assert stopped.ended()[0]["reason"] == "finished"
    assert stopped.log("stopped", cut_off=0)
    assert other.ended()[0]["reason"] == "finished"


@pytest.mark.parametrize("name", ["listen", "connect"])
def test_what_remains_is_told(pair: Pair, name: str) -> None:
    """After the drain: RESET "shutting down" to the peer, a reset to the application, status 1."""
    stopped, other = side(pair, name)
    clients = [connect(pair.address) for _ in range(5)]
    for client in clients:
        talk(client)
    stopped.signal(signal.SIGTERM)
    for client in clients:
        with client:
            assert end_of(client) == ("reset", b"")
    assert stopped.wait() == 1
    assert stopped.log("stopped", cut_off=5)
    assert {line["reason"] for line in stopped.ended(5)} == {"aborted"}
    theirs = other.ended(5)
    assert {line["reason"] for line in theirs} == {"peer_reset"}
    assert all("shutting down" in line["why"] for line in theirs)
    assert {line["level"] for line in stopped.log()} == {"info"}


@pytest.mark.parametrize("name", ["listen", "connect"])
def test_second_signal_ends_the_drain(patient: Pair, name: str) -> None:
    stopped, _ = side(patient, name)
    with connect(patient.address) as client:
        talk(client)
        stopped.signal(signal.SIGTERM)
        stopped.wait_log("stopping")
        stopped.signal(signal.SIGTERM)
        assert end_of(client) == ("reset", b"")
    assert stopped.wait(20) == 1
    assert stopped.log("a second signal: stopping at once")


def test_connection_that_is_being_opened_is_told(tmp_path: Path) -> None:
    """The target does not answer yet: the peer gets REJECT "shutting down", which lets it try elsewhere."""
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(hung.getsockname())
        to = f"127.0.0.1:{hung.getsockname()[1]}"
        with Pair(tmp_path, to, listen=["--drain", "0.2"]) as pair, connect(pair.address) as client:
            client.sendall(b"word")
            wait_for(lambda: pair.listen.descriptors() > 12, words="the dial is under way")
            time.sleep(0.3)
            pair.listen.signal(signal.SIGTERM)
            assert end_of(client) == ("reset", b"")
            assert pair.listen.wait() == 1
            assert "shutting down" in pair.connect.refused(reason="rejected")[0]["why"]
            assert pair.listen.refused(reason="shutting_down")
        for filler in fillers:
            filler.close()


def test_bulk_that_is_cut_off(pair: Pair) -> None:
    """Also where the application does not read: the stop does not wait for it."""
    with connect(pair.address) as client:
        client.settimeout(0.5)
        with suppress(TimeoutError):
            while True:  # until all buffers on the way back are full
                client.sendall(bytes(1 << 16))
        pair.listen.signal(signal.SIGTERM)
        assert pair.listen.wait(20) == 1


def test_killed_peer_is_a_reset(pair: Pair) -> None:
    """A proxy that crashes ends no stream cleanly."""
    with connect(pair.address) as client:
        talk(client)
        pair.listen.signal(signal.SIGKILL)
        assert end_of(client) == ("reset", b"")
        assert pair.connect.ended()[0]["reason"] == "truncated"
