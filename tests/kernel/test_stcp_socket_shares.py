"""Users share the handshakes of a namespace and the places of its agent: whatever one of them does, others find room."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .netlink_agent import INITIATOR, RESPONDER, Link, Taken, done, take, wait_taken
from .peer import PATIENCE, how_it_ends
from .sockets import outcome, start, stcp_socket, sysctl, tcp_listener
from .test_stcp_socket_listen import call, listening

LIBC = ctypes.CDLL(None, use_errno=True)
SETRESUID, CLONE_NEWUSER = 117, 1 << 28
GREEDY, OTHER, THIRD = 1001, 1002, 1003


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Be somebody else, in this thread alone: the agent is in others."""
    assert LIBC.syscall(SETRESUID, -1, uid, -1) == 0
    try:
        yield
    finally:
        assert LIBC.syscall(SETRESUID, -1, 0, -1) == 0


def started(uid: int, listener: socket.socket, count: int) -> list[socket.socket]:
    with as_user(uid):
        return [start(listener) for _ in range(count)]


def as_many_as_it_gets(where: tuple[str, int]) -> list[socket.socket]:
    """Connection attempts until the kernel refuses one."""
    found = []
    for _ in range(100):
        sock = stcp_socket()
        sock.setblocking(False)
        number = sock.connect_ex(where)
        if number == errno.ENOBUFS:
            sock.close()
            break
        assert number == errno.EINPROGRESS
        found.append(sock)
    return found


@contextlib.contextmanager
def deaf() -> Iterator[tuple[str, int]]:
    """An address that answers no SYN: its queue is full."""
    with tcp_listener(backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()


def close(*many: list[socket.socket]) -> None:
    for socks in many:
        for sock in socks:
            sock.close()


def take_all(link: Link, places: int | None = None) -> list[Taken]:
    """All that the agent gets, once everything is pending."""
    time.sleep(0.3)
    found = []
    while (taken := take(link, places)) is not None:
        found.append(taken)
        os.close(taken.fd)
    return found


def users(found: list[Taken]) -> list[int]:
    return [taken.uid for taken in found]


def test_sockets_that_never_connect_leave_room(link: Link) -> None:
    """One user gets half, the next one half of the rest, and both have had more than another user needs."""
    with sysctl("max_embryos", "16"), deaf() as nowhere, tcp_listener() as listener:
        with as_user(GREEDY):
            first = as_many_as_it_gets(nowhere)
        with as_user(OTHER):
            second = as_many_as_it_gets(nowhere)
        assert (len(first), len(second)) == (8, 4)
        with as_user(THIRD):
            sock = start(listener)
        taken = wait_taken(link)
        assert taken.uid == THIRD
        os.close(taken.fd)
        done(link, taken.number)
        assert outcome(sock) == 0
        # What one user gives up is room for others too.
        close(first, [sock])
        with as_user(OTHER):
            more = as_many_as_it_gets(nowhere)
        assert len(second) + len(more) == 8
        close(second, more)


def test_users_take_turns(link: Link) -> None:
    with tcp_listener(backlog=64) as listener:
        socks = [*started(GREEDY, listener, 5), *started(OTHER, listener, 2), *started(THIRD, listener, 1)]
        found = take_all(link)
        assert users(found) == [GREEDY, OTHER, THIRD, GREEDY, OTHER, GREEDY, GREEDY, GREEDY]
        numbers = [taken.number for taken in found if taken.uid == GREEDY]
        assert numbers == sorted(numbers), "the oldest of a user is not first"
        close(socks)


def test_roles_take_turns(link: Link) -> None:
    """Neither connecting sockets nor connections to listeners wait for all of the others, of one user too."""
    with tcp_listener(backlog=64) as listener, listening() as far:
        socks = [start(listener) for _ in range(4)]
        socks += [call(far) for _ in range(3)]
        roles = [taken.role for taken in take_all(link)]
        assert sorted(roles[:6]) == [INITIATOR] * 3 + [RESPONDER] * 3
        assert all(one != two for one, two in itertools.pairwise(roles[:6])), roles
        close(socks)


def test_places_of_the_agent(link: Link) -> None:
    """A user gets as many of the agent's places as it leaves free. Nothing fails: the others wait."""
    with tcp_listener(backlog=64) as listener, listening() as far:
        greedy = started(GREEDY, listener, 5)
        first = take_all(link, places=4)
        assert users(first) == [GREEDY] * 2
        other = started(OTHER, listener, 3)
        link.wait_ready()
        second = take_all(link, places=4)
        assert users(second) == [OTHER]
        peer = call(far)
        assert [taken.role for taken in take_all(link, places=4)] == [RESPONDER]
        assert select.select([], greedy + other, [], 0)[1] == []
        done(link, first[0].number)
        assert outcome(greedy[0]) == 0
        # Whoever waited for a place has kept its turn.
        assert users(take_all(link, places=4)) == [GREEDY]
        done(link, first[1].number)
        assert users(take_all(link, places=4)) == [OTHER]
        # No place for anybody who connects, however few they have; and then for everybody.
        assert take_all(link, places=1) == []
        assert sorted(users(take_all(link))) == [GREEDY] * 2 + [OTHER]
        close(greedy, other, [peer])


@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_the_agent_sees_that_nobody_wants_a_handshake(link: Link, how: str) -> None:
    """A silent peer gives no sign of it. Else a user that opens and closes sockets would keep the places of the agent."""
    with tcp_listener() as listener:
        sock = start(listener)
        taken = wait_taken(link)
        with socket.socket(fileno=taken.fd) as held:
            held.settimeout(PATIENCE)
            assert select.select([held], [], [], 0.1)[0] == []
            if how == "close":
                sock.close()
            else:
                sock.shutdown(socket.SHUT_RDWR)
            assert held.recv(1) == b""
            with pytest.raises(FileNotFoundError):
                done(link, taken.number)
        sock.close()


def greedy_child(where: tuple[str, int], ask: int, tell: int) -> None:
    """A user with ids of its own, each of which connects as many sockets as it gets. Writes how many these are."""
    os.setgid(GREEDY)
    os.setuid(GREEDY)
    assert LIBC.unshare(CLONE_NEWUSER) == 0, os.strerror(ctypes.get_errno())
    os.write(tell, b"x")
    os.read(ask, 1)
    found = []
    for uid in range(1, 6):
        assert LIBC.syscall(SETRESUID, uid, uid, 0) == 0
        found += as_many_as_it_gets(where)
        assert LIBC.syscall(SETRESUID, 0, 0, 0) == 0
    os.write(tell, bytes([len(found)]))
    os.read(ask, 1)


def test_a_user_with_many_ids_is_one_user(link: Link) -> None:
    (ask_read, ask), (tell_read, tell) = os.pipe(), os.pipe()
    with sysctl("max_embryos", "16"), deaf() as nowhere:
        pid = os.fork()
        if not pid:
            try:
                os.close(ask)
                greedy_child(nowhere, ask_read, tell)
            finally:
                os._exit(1)
        try:
            assert os.read(tell_read, 1) == b"x"
            Path(f"/proc/{pid}/uid_map").write_text("0 100000 1000")
            os.write(ask, b"x")
            assert os.read(tell_read, 1) == b"\x08"
            # By its own id it is the same user too.
            with as_user(GREEDY):
                assert as_many_as_it_gets(nowhere) == []
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            for fd in (ask_read, ask, tell_read, tell):
                os.close(fd)


def test_a_listener_without_room_leaves_connections_to_tcp(link: Link) -> None:
    with listening() as first, listening() as second, sysctl("max_embryos", "4"):
        peers = [call(first) for _ in range(6)]
        held = take_all(link)
        assert len(held) == 2
        late = call(second)
        assert select.select([*peers, late], [], [], 0.5)[0] == [], "a connection was closed"
        assert take(link) is None
        for taken in held:
            done(link, taken.number, swapped=True)
        served = [first.accept()[0] for _ in held]
        # Now one of either listener may be the next: each asks again by itself.
        poll = select.poll()
        for listener in (first, second):
            poll.register(listener, select.POLLIN)
        while len(served) < 7:
            taken = wait_taken(link)
            os.close(taken.fd)
            done(link, taken.number, swapped=True)
            for fd, _ in poll.poll(PATIENCE * 1000):
                served.append((first if fd == first.fileno() else second).accept()[0])
        assert len({sock.getpeername() for sock in served}) == 7
        close(served)
        for peer in [*peers, late]:
            assert how_it_ends(peer)[1] in ("eof", "reset")
        close([*peers, late])
