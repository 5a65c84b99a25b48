"""Several `--to` on the connecting side: the next one is tried, in order, as long as nobody can have heard the application."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.proxies import Keys, Pair, Proxy
from harness.sockets import Target, connect, end_of_new, free_port, read_exactly, reset

WORDS = random.Random(5).randbytes(30_000)


class Peers:
    """The last peer, which works, and the makings of others in front of it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.target = stack.enter_context(Target())
        self.keys = Keys(folder)
        self.last = self.listen(self.target.to, "last")

    def listen(self, to: str, name: str, *flags: str) -> Proxy:
        """A further listening side."""
        arguments = ["listen", "--bind", "127.0.0.1:0", "--to", to, *self.keys.listen(), *flags]
        proxy = Proxy(arguments, log=self._folder / f"{name}.log")
        self._stack.callback(proxy.stop)
        return proxy.ready()  # type: ignore[return-value]

    def connect(self, name: str, *to: str, flags: tuple[str, ...] = ()) -> Proxy:
        """A connecting side that tries `to` in order."""
        targets = [flag for address in to for flag in ("--to", address)]
        arguments = ["connect", "--bind", "127.0.0.1:0", *targets, *self.keys.connect(), *flags]
        proxy = Proxy(arguments, log=self._folder / f"{name}.log")
        self._stack.callback(proxy.stop)
        return proxy.ready()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peers]:
    with ExitStack() as stack:
        yield Peers(tmp_path_factory.mktemp("peers"), stack)


def carries(proxy: Proxy) -> None:
    with connect(proxy.address) as client:
        client.sendall(WORDS)
        assert read_exactly(client, len(WORDS)) == WORDS


def test_a_refused_address(peers: Peers) -> None:
    proxy = peers.connect("refused", f"127.0.0.1:{free_port()}", "127.0.0.1:1", *peers.last.addresses)
    carries(proxy)
    assert len(proxy.log("connection failed over", reason="target_refused")) == 2
    assert proxy.ended()[0]["target"] == peers.last.addresses[0]


def test_a_name_that_does_not_exist(peers: Peers) -> None:
    carries(peers.connect("name", "nowhere.invalid:7443", *peers.last.addresses))


def test_a_peer_that_hangs_up_on_the_handshake(peers: Peers) -> None:
    def hang_up(sock: socket.socket) -> None:
        sock.recv(1)  # not before: a connection that is reset at once may look like one that was never made
        reset(sock)

    with Target(hang_up) as other:
        proxy = peers.connect("hangs-up", other.to, *peers.last.addresses)
        carries(proxy)
        assert other.dialled(1)
        proxy.wait_log("connection failed over")  # as unreachable, where the reset came before the connection was seen


def test_a_peer_of_another_key(peers: Peers, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with Proxy(["listen", "--bind", "127.0.0.1:0", "--to", peers.target.to, *keys.listen()], log=tmp_path / "other.log") as other:
        carries(peers.connect("other-key", *other.addresses, *peers.last.addresses))
        other.refused(reason="not_authentic")


def test_a_peer_that_connects_and_is_silent(peers: Peers) -> None:
    """A process that hangs still connects: the kernel does it. Its silence must not use up the others' time."""
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        to = f"127.0.0.1:{hung.getsockname()[1]}"
        flags = ("--handshake-timeout", "1", "--dial-timeout", "1")
        proxy = peers.connect("silent", to, *peers.last.addresses, flags=flags)
        carries(proxy)
        proxy.wait_log("connection failed over", reason="handshake_timeout")


def test_a_peer_whose_target_is_down(peers: Peers) -> None:
    """What the application said already is said again to the next peer, whole and once."""
    other = peers.listen(f"127.0.0.1:{free_port()}", "down")
    proxy = peers.connect("target-down", *other.addresses, *peers.last.addresses)
    carries(proxy)
    proxy.wait_log("connection failed over", reason="rejected")
    other.refused(reason="target_refused")


def test_all_down(peers: Peers) -> None:
    dead = f"127.0.0.1:{free_port()}"
    proxy = peers.connect("all-down", dead, "127.0.0.1:1")
    assert end_of_new(proxy.address) == ("reset", b"")
    line = proxy.refused(reason="peer_unreachable")[0]
    assert "remedy" in line
    assert "127.0.0.1:1" in line["why"]


def test_several_targets_of_the_listening_side(tmp_path: Path) -> None:
    with Target() as target, Pair(tmp_path, [f"127.0.0.1:{free_port()}", target.to]) as pair:
        carries(pair.connect)
        assert pair.listen.ended()[0]["target"] == target.to
