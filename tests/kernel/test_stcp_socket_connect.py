"""connect() of sockets of the protocol: blocking and not, errors, and an agent that dies or is slow in every state."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .netlink_agent import CHANNEL, NAME, Agent, Link, done, take, wait_taken
from .peer import DATA, eventually, how_it_ends, read_exactly
from .refusals import refused
from .sockets import Pair, address, outcome, start, stcp_socket, sysctl, tcp_listener

FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
SO_MAX_PACING_RATE = 47


@FAMILIES
def test_what_the_agent_and_the_application_are_told(family: socket.AddressFamily) -> None:
    with Agent() as agent, tcp_listener(family) as listener, stcp_socket(family) as sock:
        sock.setsockopt(abi.SOL_STCP, 18, b"a service")
        sock.setsockopt(abi.SOL_STCP, 19, b"an identity")
        assert sock.getsockopt(abi.SOL_STCP, 18, 64) == b"a service"
        sock.bind((address(family), 0))
        sock.connect(listener.getsockname())
        (taken,) = agent.taken
        assert (taken.role, taken.service, taken.identity, taken.uid) == (0, b"a service", b"an identity", os.geteuid())
        assert 5000 < taken.left_ms <= 10000
        assert sock.getsockopt(abi.SOL_STCP, 16, 255) == NAME
        assert sock.getsockopt(abi.SOL_STCP, 17, 32) == CHANNEL
        peer, whence = listener.accept()
        assert sock.getsockname() == whence
        assert sock.getpeername() == listener.getsockname()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == 253
        peer.close()
        for option in (18, 19):
            with refused(errno.EISCONN):
                sock.setsockopt(abi.SOL_STCP, option, b"too late")
        assert sock.connect_ex(listener.getsockname()) == 0  # it has waited in poll(), as a program does that does not block
        with refused(errno.EISCONN):
            sock.connect(listener.getsockname())


def test_names_of_the_namespace() -> None:
    with sysctl("service", "default"), sysctl("identity", "machine"), Agent() as agent, Pair():
        assert (agent.taken[0].service, agent.taken[0].identity) == (b"default", b"machine")
    with Agent() as agent, Pair():
        assert (agent.taken[0].service, agent.taken[0].identity) == (None, None)


def test_no_agent_and_no_listener() -> None:
    with tcp_listener() as listener, stcp_socket() as sock:
        assert sock.connect_ex(listener.getsockname()) == errno.ESRCH
        with Agent():
            listener.close()
            dead = ("127.0.0.1", 1)
            assert sock.connect_ex(dead) == errno.ECONNREFUSED
            # As with TCP, the same socket may try again.
            with tcp_listener() as other:
                sock.connect(other.getsockname())
                assert sock.getpeername() == other.getsockname()
    with Agent(), stcp_socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("127.0.0.1", 1)) in (errno.EINPROGRESS, errno.ECONNREFUSED)
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        assert poll.poll(5000)[0][1] & (select.POLLERR | select.POLLHUP)


def assert_set(event: threading.Event) -> None:
    assert event.wait(10)


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EKEYREJECTED, errno.ENOKEY]
)
def test_the_errors_of_the_agent(number: int) -> None:
    answer = threading.Event()
    answer.set()
    with Agent(number, before=lambda _: assert_set(answer)), tcp_listener() as listener:
        with stcp_socket() as sock:
            sock.settimeout(None)
            assert sock.connect_ex(listener.getsockname()) == number
            with pytest.raises(OSError, match="Errno"):
                sock.send(b"x")
            with pytest.raises(OSError, match="Errno"):
                sock.recv(1)
            # The agent has had the inner socket: a new socket is needed.
            assert sock.connect_ex(listener.getsockname()) == errno.EINVAL
        answer.clear()
        with start(listener) as sock:
            answer.set()
            assert outcome(sock) == number
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            # As with TCP, the next connect() says once that the attempt is over.
            assert sock.connect_ex(listener.getsockname()) == errno.ECONNABORTED
            assert sock.connect_ex(listener.getsockname()) == errno.EINVAL


def test_not_blocking(link: Link) -> None:
    with tcp_listener() as listener, start(listener) as sock:
        assert select.select([sock], [sock], [], 0.1) == ([], [], [])
        assert sock.connect_ex(listener.getsockname()) == errno.EALREADY
        for call in (lambda: sock.recv(1), lambda: sock.send(b"x")):
            with pytest.raises(BlockingIOError):
                call()
        with refused(errno.ENOTCONN):
            sock.getpeername()
        taken = wait_taken(link)
        os.close(taken.fd)
        done(link, taken.number)
        assert outcome(sock) == 0
        assert sock.connect_ex(listener.getsockname()) == 0
        assert sock.connect_ex(listener.getsockname()) == errno.EISCONN
        sock.send(b"x")


def test_a_timeout_of_the_socket(link: Link) -> None:
    with tcp_listener() as listener, stcp_socket() as sock:
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, b"\1" + bytes(15))
        began = time.monotonic()
        assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        assert time.monotonic() - began < 5
        taken = wait_taken(link)
        done(link, taken.number)
        os.close(taken.fd)
        assert outcome(sock) == 0


def test_time_is_over(link: Link) -> None:
    with sysctl("handshake_ms", "300"), tcp_listener() as listener:
        with start(listener) as sock:  # nobody takes it
            assert outcome(sock) == errno.ETIMEDOUT
        with start(listener) as sock:
            taken = wait_taken(link)
            assert outcome(sock) == errno.ETIMEDOUT
            with pytest.raises(FileNotFoundError):
                done(link, taken.number)
            os.close(taken.fd)
    assert take(link) is None


@pytest.mark.parametrize("state", ["pending", "accepted"])
@pytest.mark.parametrize("how", ["close", "shutdown", "unspec", "kill"])
def test_the_application_gives_up(link: Link, state: str, how: str) -> None:
    with tcp_listener() as listener:
        if how == "kill":
            pid = os.fork()
            if not pid:
                with suppress(OSError):
                    stcp_socket().connect(listener.getsockname())
                os._exit(1)
        else:
            sock = start(listener)
        peer, _ = listener.accept()
        taken = wait_taken(link) if state == "accepted" else None
        time.sleep(0.05)
        if how == "kill":
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        elif how == "shutdown":
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        elif how == "unspec":
            import ctypes

            ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)
            sock.close()
        else:
            sock.close()
        if taken:
            with pytest.raises(FileNotFoundError):
                done(link, taken.number)
            os.close(taken.fd)
        else:
            assert take(link) is None
        peer.settimeout(10)
        assert how_it_ends(peer)[1] in ("eof", "reset")
        peer.close()


def test_a_limit_of_handshakes(link: Link) -> None:
    with sysctl("max_embryos", "5"), tcp_listener() as listener:
        socks = [start(listener) for _ in range(3)]
        with stcp_socket() as sock:
            assert sock.connect_ex(listener.getsockname()) == errno.ENOBUFS
        for sock in socks:
            sock.close()
        with start(listener) as sock:
            taken = wait_taken(link)
            done(link, taken.number)
            assert outcome(sock) == 0
            os.close(taken.fd)


def test_threads_share_a_socket() -> None:
    with Agent(), Pair() as p:
        got: list[bytes] = []
        readers = [threading.Thread(target=lambda: got.append(p.app.recv(1))) for _ in range(4)]
        for thread in readers:
            thread.start()
        for i in range(4):
            p.send(DATA, bytes([i]))
        for thread in readers:
            thread.join()
        assert sorted(got) == [bytes([i]) for i in range(4)]
        late = threading.Thread(target=lambda: got.append(p.app.recv(1)))
        late.start()
        time.sleep(0.1)
        p.app.shutdown(socket.SHUT_RD)
        late.join(5)
        assert got[-1] == b""


def test_options_reach_tcp() -> None:
    with Agent(), Pair() as p:
        p.app.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
        assert p.app.getsockopt(socket.SOL_TCP, socket.TCP_NODELAY) == 1
        p.app.setsockopt(socket.SOL_IP, socket.IP_TOS, 16)
        assert p.app.getsockopt(socket.SOL_IP, socket.IP_TOS) == 16
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        p.app.setsockopt(socket.SOL_TCP, socket.TCP_KEEPIDLE, 7)
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        p.check_alive()
        assert f":{p.peer.getsockname()[1]:04X}" in Path("/proc/net/tcp").read_text()
        line = next(
            line
            for line in Path("/proc/net/tcp").read_text().splitlines()
            if line.split()[1].endswith(f":{p.app.getsockname()[1]:04X}")
        )
        assert line.split()[5].startswith("02:")  # keepalive's timer runs
        p.send(DATA, bytes(60000))
        assert len(read_exactly(p.app, 60000)) == 60000
        for level, option in ((socket.SOL_TCP, abi.TCP_ULP), (socket.SOL_TCP, 19), (socket.SOL_TCP, 23), (41, 1)):
            with pytest.raises(OSError, match="Errno"):
                p.app.setsockopt(level, option, b"tls\0")
        with pytest.raises(OSError, match="Errno"):
            p.app.setsockopt(abi.SOL_STCP, abi.RELAY, bytes(abi.RELAY_ARGS.size))


def timer_of(sock: socket.socket) -> int:
    """The timer that runs for the TCP connection underneath: 0 none, 2 keepalive (tr of /proc/net/tcp)."""
    port = f":{sock.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port) and fields[3] == "01":
            return int(fields[5].split(":")[0], 16)
    raise AssertionError(f"no connection from {port}")


def test_keepalive_takes_effect_at_once(agent: Agent) -> None:
    with Pair() as p:
        eventually(lambda: timer_of(p.app) == 0, "TCP still waits for an acknowledgment")
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert timer_of(p.app) == 2
        assert p.app.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        p.app.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        assert timer_of(p.app) == 0


def test_pacing_without_a_queue_that_does_it(agent: Agent) -> None:
    """TCP lets ten segments pass before it paces, 650 KB here."""
    with Pair() as p:
        p.app.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 500_000)
        began = time.monotonic()
        sender = threading.Thread(target=p.app.sendall, args=(bytes(2_000_000),))
        sender.start()
        p.read_data(2_000_000)
        sender.join()
        assert time.monotonic() - began > 1.5
