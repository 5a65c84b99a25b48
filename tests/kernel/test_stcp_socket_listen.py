"""listen() and accept() of sockets of the protocol: nobody is handed out before the agent says so, and embryos are bounded."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from .netlink_agent import CHANNEL, NAME, Agent, Link, done, take, wait_taken
from .peer import DATA, KEY_DOWN, KEY_UP, Cipher, eventually, how_it_ends, read_exactly, references
from .sockets import Pair, address, stcp_socket, sysctl

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
SOL_STCP = 21332


def listening(family: socket.AddressFamily = socket.AF_INET, backlog: int = 16) -> socket.socket:
    sock = stcp_socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address(family), 0))
    sock.listen(backlog)
    return sock


def call(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], 30)


@FAMILIES
def test_accept_hands_out_what_the_agent_has_opened(family: socket.AddressFamily) -> None:
    link = Link()
    link.register()
    with listening(family) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        peer = call(listener)
        taken = wait_taken(link)
        assert (taken.role, taken.uid, taken.service) == (1, os.geteuid(), None)
        assert select.select([listener], [], [], 0.2)[0] == []
        with pytest.raises(BlockingIOError):
            listener.setblocking(False) or listener.accept()
        done(link, taken.number, swapped=True)
        os.close(taken.fd)
        assert select.select([listener], [], [], 10)[0] == [listener]
        sock, whence = listener.accept()
        assert whence == peer.getsockname()
        assert sock.getpeername() == peer.getsockname()
        assert sock.getsockname() == listener.getsockname()
        assert sock.getsockopt(SOL_STCP, 16, 255) == NAME
        assert sock.getsockopt(SOL_STCP, 17, 32) == CHANNEL
        with suppress(OSError):
            peer.close()
        sock.close()
    link.close()


def test_a_refused_peer_is_nobodys_business() -> None:
    with Agent(errno.EACCES), listening() as listener:
        peer = call(listener)
        assert how_it_ends(peer)[1] in ("eof", "reset")
        assert select.select([listener], [], [], 0.2)[0] == []
        peer.close()


def test_inherited_and_served() -> None:
    with Agent(), listening() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\5" + bytes(15))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 3)
        peer = call(listener)
        sock, _ = listener.accept()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == b"\5" + bytes(15)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 3
        peer.close()
        sock.close()
    with Agent(), Pair(listens=True) as p:
        p.check_alive()


def test_two_sockets_of_the_protocol() -> None:
    with Agent(), listening() as listener, stcp_socket() as near:
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        near.sendall(b"there")
        assert read_exactly(far, 5) == b"there"
        far.sendall(b"and back")
        far.close()
        assert read_exactly(near, 8) == b"and back"
        assert how_it_ends(near) == (0, "eof")


def test_silent_peers_are_bounded_by_time_and_by_source() -> None:
    link = Link()
    link.register()
    with sysctl("handshake_ms", "1500"), listening(backlog=8) as listener:
        peers = [call(listener) for _ in range(8)]
        seen = []
        for _ in range(6):  # three quarters
            seen.append(wait_taken(link))
        time.sleep(0.2)
        assert take(link) is None
        # The two beyond the share were closed at once, the others when their time is over.
        closed = select.select(peers, [], [], 0)[0]
        assert len(closed) == 2
        for peer in peers:
            peer.settimeout(20)
            assert how_it_ends(peer)[1] in ("eof", "reset")
            peer.close()
        for taken in seen:
            os.close(taken.fd)
        # There is room again.
        peer = call(listener)
        taken = wait_taken(link)
        done(link, taken.number, swapped=True)
        os.close(taken.fd)
        sock, _ = listener.accept()
        sock.close()
        peer.close()
    link.close()


def test_a_listener_waits_for_an_agent() -> None:
    with listening() as listener:
        peer = call(listener)
        time.sleep(0.2)
        with Agent():
            sock, _ = listener.accept()
            sock.close()
        peer.close()


@pytest.mark.parametrize("state", ["pending", "accepted", "ready", "held by the agent"])
def test_close_with_embryos_in_every_state(state: str) -> None:
    link = Link()
    link.register()
    before = references()
    listener = listening()
    peers = [call(listener) for _ in range(5)]
    fds = []
    if state != "pending":
        for _ in peers:
            taken = wait_taken(link)
            fds.append(taken.fd)
            if state == "ready":
                done(link, taken.number, swapped=True)
    else:
        link.wait_ready()
    if state != "held by the agent":
        for fd in fds:
            os.close(fd)
    listener.close()
    assert take(link) is None
    for peer in peers:
        assert how_it_ends(peer)[1] in ("eof", "reset")
        peer.close()
    if state == "held by the agent":
        for fd in fds:
            os.close(fd)
    eventually(lambda: references() == before, "a reference is left")
    link.close()


@pytest.mark.parametrize("state", ["pending", "accepted", "ready"])
def test_peers_that_leave_and_an_agent_that_dies(state: str) -> None:
    link = Link()
    link.register()
    with listening() as listener:
        peers = [call(listener) for _ in range(5)]
        if state == "pending":
            link.wait_ready()
        else:
            for _ in peers:
                taken = wait_taken(link)
                if state == "ready":
                    done(link, taken.number, swapped=True)
                os.close(taken.fd)
        for peer in peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1" + bytes(7))
            peer.close()
        link.close()
        if state == "ready":
            for _ in peers:
                sock, _ = listener.accept()
                assert how_it_ends(sock) == (0, "reset")
                sock.close()
        with Agent():
            peer = call(listener)
            sock, _ = listener.accept()
            assert sock.getpeername() == peer.getsockname()
            sock.close()
            peer.close()


def test_shutdown_of_a_listener_and_threads_in_accept() -> None:
    with Agent(), listening() as listener:
        listener.setblocking(True)
        errors: list[int | None] = []

        def accept() -> None:
            try:
                listener.accept()
            except OSError as exc:
                errors.append(exc.errno)

        threads = [threading.Thread(target=accept) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        assert errors == [errno.EINVAL] * 3
        with pytest.raises(ConnectionRefusedError):
            call(listener)


def test_ten_thousand_embryos() -> None:
    """A flood of silent connections: bounded, and it leaves nothing behind."""
    before = references()
    link = Link()
    link.register()
    with sysctl("handshake_ms", "1000"), listening(backlog=4096) as listener:
        flood = 0
        deadline = time.monotonic() + 60
        while flood < 10_000 and time.monotonic() < deadline:
            socks = [socket.socket() for _ in range(200)]
            for sock in socks:
                sock.setblocking(False)
                sock.connect_ex(listener.getsockname())
                flood += 1
            while (taken := take(link)) is not None:
                os.close(taken.fd)
            for sock in socks:
                sock.close()
        assert flood > 1000
        link.close()
        with Agent():
            deadline = time.monotonic() + 30
            while True:
                peer = call(listener)
                peer.settimeout(10)
                if select.select([listener], [], [], 3)[0]:
                    break
                peer.close()
                assert time.monotonic() < deadline
            sock, _ = listener.accept()
            sock.close()
            peer.close()
    eventually(lambda: references() == before, "a reference is left")


def test_fork_and_a_killed_server() -> None:
    with Agent():
        listener = listening()
        pid = os.fork()
        if not pid:
            while True:
                sock, _ = listener.accept()
                sock.sendall(sock.recv(10))
        where = listener.getsockname()
        listener.close()
        up, down = Cipher(KEY_DOWN), Cipher(KEY_UP)
        peer = socket.create_connection(where, 30)
        peer.sendall(down.seal(DATA, b"echo"))
        assert up.open(read_exactly(peer, 24)) == b"echo"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert how_it_ends(peer)[1] in ("eof", "reset")
        peer.close()


def test_a_namespace_that_goes_away() -> None:
    """Its sockets and its agent die with its last process; nothing of them stays."""
    before = references()
    script = (
        "import socket, os\n"
        "from tests.kernel.netlink_agent import Agent, Link, wait_taken\n"
        "from tests.kernel.test_stcp_socket_listen import listening, call\n"
        "os.system('ip link set lo up')\n"
        "link = Link(); link.register()\n"
        "a = listening(); peers = [call(a) for _ in range(3)]\n"
        "taken = wait_taken(link)\n"
        "b = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 253); b.setblocking(False); b.connect_ex(a.getsockname())\n"
        "assert open('/proc/sys/net/stcp/max_embryos').read() == '4096\\n'\n"
        "print('well', flush=True)\n"
    )
    import sys

    out = subprocess.run(["unshare", "-n", sys.executable, "-c", script], check=True, capture_output=True)
    assert out.stdout == b"well\n"
    eventually(lambda: references() == before, "a reference is left")
