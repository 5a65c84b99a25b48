"""The agent of sockets of the protocol: what it may do, what it may not, and what its death means."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from functools import partial

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .netlink_agent import SEND_KEY, Agent, Link, attribute, done, take, wait_taken
from .peer import eventually, how_it_ends, read_exactly, references
from .refusals import disconnect, protocol_is_asked, refused
from .sockets import Pair, outcome, start, stcp_socket, sysctl, tcp_listener
from .test_sharing import lock_holder

IPV6_ADDRFORM = 1
SO_ATTACH_FILTER, SO_TIMESTAMPING = 26, 37


def test_done_is_once(link: Link) -> None:
    with tcp_listener() as listener, start(listener) as sock:
        with pytest.raises(FileNotFoundError):
            done(link, 1 << 60)
        taken = wait_taken(link)
        for changed in (
            {"send_key": attribute(SEND_KEY, bytes(31))},
            {"send_key": b""},
            {"channel": b""},
            {"receive_counter": b""},
        ):
            with pytest.raises(OSError, match="Errno"):
                done(link, taken.number, **changed)
        with refused(errno.EKEYEXPIRED):
            done(link, taken.number, counters=((1 << 64) - 1, 0))
        with refused(errno.EINVAL):
            done(link, taken.number, errno.EINPROGRESS)
        assert select.select([], [sock], [], 0)[1] == []
        done(link, taken.number)
        with pytest.raises(FileNotFoundError):
            done(link, taken.number)
        with pytest.raises(FileNotFoundError):
            done(link, taken.number, errno.EACCES)
        assert outcome(sock) == 0
        os.close(taken.fd)


def test_one_agent_and_only_the_agent(link: Link) -> None:
    other = Link()
    with refused(errno.EBUSY):
        other.register()
    with refused(errno.EPROTONOSUPPORT):
        other.register(1)
    with tcp_listener() as listener, start(listener) as sock:
        with pytest.raises(PermissionError):
            take(other)
        taken = wait_taken(link)
        with pytest.raises(PermissionError):
            done(other, taken.number)
        done(link, taken.number)
        assert outcome(sock) == 0
        os.close(taken.fd)
    link.register()  # again, by itself
    other.close()


def test_ready_comes_once_until_the_agent_has_asked(link: Link) -> None:
    other = Link()
    with tcp_listener() as listener:
        for _ in range(2):
            assert take(link) is None
            link.ready = 0
            socks = [start(listener) for _ in range(5)]
            time.sleep(0.5)
            for _ in socks:
                taken = take(link)
                assert taken is not None
                os.close(taken.fd)
            assert link.ready == 1
            for sock in socks:
                sock.close()
    assert select.select([other.sock], [], [], 0)[0] == []
    other.close()


def test_not_for_everybody() -> None:
    pid = os.fork()
    if not pid:
        os.setgid(65534)
        os.setuid(65534)
        try:
            Link().register()
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_agent_dies() -> None:
    with tcp_listener() as listener:
        link = Link()
        link.register()
        first = start(listener)
        taken = wait_taken(link)
        second = start(listener)
        eventually(lambda: second.fileno() > 0, "")
        time.sleep(0.1)
        link.close()
        os.close(taken.fd)
        assert outcome(first) == errno.ECONNABORTED
        # The second waits for the next agent.
        assert select.select([], [second], [], 0.2)[1] == []
        with Agent():
            assert outcome(second) == 0
        first.close()
        second.close()


def set_socket_options(sock: socket.socket) -> list[Callable[[], None]]:
    values = {
        socket.SO_KEEPALIVE: b"\1\0\0\0",
        socket.SO_SNDBUF: b"\0\0\1\0",
        socket.SO_LINGER: b"\1\0\0\0\xff\0\0\0",
        SO_TIMESTAMPING: b"\xff\3\0\0",
        SO_ATTACH_FILTER: bytes(16),
    }
    return [partial(sock.setsockopt, socket.SOL_SOCKET, option, value) for option, value in values.items()]


def test_the_agents_descriptor_is_of_no_use_afterwards(link: Link) -> None:
    with tcp_listener() as listener, start(listener) as sock:
        taken = wait_taken(link)
        kept = socket.socket(fileno=taken.fd)
        kept.settimeout(5)
        peer, _ = listener.accept()
        kept.sendall(b"handshake")
        assert read_exactly(peer, 9) == b"handshake"
        done(link, taken.number)
        assert outcome(sock) == 0
        peer.sendall(b"text for the application")
        for call in (
            lambda: kept.recv(1),
            lambda: kept.send(b"x"),
            lambda: kept.shutdown(socket.SHUT_RDWR),
            lambda: kept.setsockopt(socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME),
            lambda: kept.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 9),
            lambda: kept.connect(listener.getsockname()),
            lambda: kept.bind(("127.0.0.1", 0)),
            lambda: os.splice(taken.fd, os.pipe()[1], 1),
            kept.accept,
            *(set_socket_options(kept) if protocol_is_asked() else ()),
        ):
            with refused(errno.EBUSY):
                call()
        poll = select.poll()
        poll.register(kept, select.POLLIN)
        assert poll.poll(1000) == [(kept.fileno(), select.POLLHUP)]
        # Its addresses and what options of SOL_SOCKET stand at can be read.
        assert kept.getpeername() == listener.getsockname()
        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        # It does not keep the connection alive either.
        sock.close()
        assert how_it_ends(peer)[1] in ("eof", "reset")
        kept.close()
        peer.close()


def test_nothing_of_the_module_stays_on_the_agents_descriptor(link: Link) -> None:
    """A protocol saves callbacks and a listener hands them down, so both are refused; what is left keeps the module loaded."""
    before = references()
    with tcp_listener() as listener:
        sock = start(listener)
        taken = wait_taken(link)
        kept = socket.socket(fileno=taken.fd)
        for call in (
            lambda: kept.setsockopt(socket.SOL_TCP, abi.TCP_ULP, b"tls"),
            lambda: kept.setsockopt(socket.SOL_TCP, abi.TCP_ULP, abi.ULP_NAME),
            lambda: kept.bind(("127.0.0.1", 0)),
            lambda: kept.listen(),
        ):
            with refused(errno.EBUSY):
                call()
        disconnect(kept)
        kept.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
        sock.close()
        time.sleep(0.2)
        assert references() > before
        kept.close()
        eventually(lambda: references() == before, "a closed descriptor holds the module")


def test_the_agent_does_not_change_the_family(link: Link) -> None:
    """IPV6_ADDRFORM puts other operations on the socket, without the reference on the module that ours hold."""
    before = references()
    with tcp_listener() as listener, stcp_socket(socket.AF_INET6) as sock:
        sock.setblocking(False)
        assert sock.connect_ex(("::ffff:127.0.0.1", listener.getsockname()[1])) == errno.EINPROGRESS
        taken = wait_taken(link)
        with socket.socket(fileno=taken.fd) as held, refused(errno.EBUSY):
            held.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDRFORM, socket.AF_INET)
    eventually(lambda: references() == before, "a closed descriptor holds the module")


def test_close_does_not_wait_for_the_agent() -> None:
    """The last reference of a file may end in the kernel's one worker that closes files: it would wait there for ever."""
    before = references()
    with lock_holder("agent", says="closed"), Agent(), Pair() as victim:
        victim.app.sendall(b"text")
        assert victim.read_data(4) == b"text"
    eventually(lambda: references() == before, "a socket of the killed user is left")


def test_the_agent_sees_the_end_of_a_connection_that_somebody_holds() -> None:
    """A handshake that is given up counts no more for its user, so calls that take the lock must not keep its place."""
    before = references()
    with lock_holder("gives-up", says="seen"):
        pass
    eventually(lambda: references() == before, "a socket of the killed user is left")


def test_many_handshakes_each_by_its_number() -> None:
    """More than are in one row of the table, and more than end at once when the agent is gone."""
    link = Link()
    link.register()
    with sysctl("handshake_ms", "60000"), tcp_listener(backlog=700) as listener:
        socks = {}
        for _ in range(600):
            sock = start(listener)
            taken = wait_taken(link)
            os.close(taken.fd)
            socks[taken.number] = sock
        *first, _ = numbers = list(socks)
        for number in first[::3]:
            done(link, number, errno.EACCES)
            assert outcome(socks[number]) == errno.EACCES
        for number in first[::3]:
            with pytest.raises(FileNotFoundError):
                done(link, number, errno.EACCES)
        link.close()
        for number in set(numbers) - set(first[::3]):
            assert outcome(socks[number]) == errno.ECONNABORTED
        with Agent(), start(listener) as sock:
            assert outcome(sock) == 0
        for sock in socks.values():
            sock.close()


@pytest.mark.parametrize("harm", ["shutdown", "linger", "closed by the peer", "reset by the peer"])
def test_an_agent_that_does_more_than_talk(link: Link, harm: str) -> None:
    with tcp_listener() as listener, start(listener) as sock:
        taken = wait_taken(link)
        kept = socket.socket(fileno=taken.fd)
        peer, _ = listener.accept()
        if harm == "shutdown":
            kept.shutdown(socket.SHUT_WR)
        elif harm == "linger":
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\xff\0\0\0")
        else:
            if harm == "reset by the peer":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            time.sleep(0.1)
        if harm in ("linger", "closed by the peer"):
            done(link, taken.number)
            assert outcome(sock) == 0
            began = time.monotonic()
            sock.close()
            kept.close()
            peer.close()
            assert time.monotonic() - began < 3
            return
        number = errno.ECONNRESET if harm == "reset by the peer" else errno.ECONNABORTED
        with refused(number):
            done(link, taken.number)
        assert outcome(sock) == number
        kept.close()
        peer.close()
