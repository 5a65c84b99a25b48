"""Sockets of the protocol of a user whose memory cgroup is full: nobody else waits for that memory."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time

import pytest

from .netlink_agent import Agent, Link, done, wait_taken
from .peer import DATA, FIN, PATIENCE, RESET, eventually, how_it_ends, references
from .sockets import Pair, outcome, start, stcp_socket, sysctl, tcp_listener
from .test_sharing import CGROUPS, cgroup, events, fill
from .test_stcp_socket_close import circle, collected


def leave() -> None:
    (CGROUPS / "cgroup.procs").write_text(str(os.getpid()))


def end(link: Link, number: int) -> int:
    try:
        done(link, number)
    except OSError as exc:
        return exc.errno or 0
    return 0


def test_the_end_of_a_handshake_reclaims_nothing(link: Link) -> None:
    """The agent must not wait for memory of one user, nor call the OOM killer, while it has a lock of the whole machine."""
    with sysctl("handshake_ms", "60000"), tcp_listener(backlog=64) as listener, contextlib.ExitStack() as opened:
        with cgroup("stcp-done", 256 << 20) as group:
            poor = [opened.enter_context(start(listener)) for _ in range(20)]
            leave()
            taken = [wait_taken(link) for _ in poor]
            results = []
            for each in taken:
                fill(group)
                results.append(end(link, each.number))
                os.close(each.fd)
            happened = events(group)
            (group / "memory.max").write_text("max")
            print(f"{results}; {happened}")
            assert happened["oom"] == 0
            assert errno.ENOMEM in results
            assert set(results) <= {0, errno.ENOMEM}
            assert [outcome(sock) for sock in poor] == results
        others = opened.enter_context(start(listener))
        each = wait_taken(link)
        os.close(each.fd)
        assert (end(link, each.number), outcome(others)) == (0, 0)


def test_a_descriptor_for_the_agent_reclaims_nothing(link: Link) -> None:
    """Its table of descriptors has to grow, and its own memory cgroup is full. It must not wait, nor stop."""
    with sysctl("handshake_ms", "60000"), tcp_listener(backlog=64) as listener, contextlib.ExitStack() as opened:
        socks = [opened.enter_context(start(listener)) for _ in range(20)]
        with cgroup("stcp-accept", 256 << 20) as group:
            limit = max(int(name) for name in os.listdir("/proc/self/fd"))
            while bin(limit + 1).count("1") != 1 or limit < 255:  # a table doubles
                limit = os.dup(link.sock.fileno())
                opened.callback(os.close, limit)
            fill(group)
            taken = [wait_taken(link) for _ in socks]
            happened = events(group)
            (group / "memory.max").write_text("max")
            leave()
        print(f"descriptors {[each.fd for each in taken]}; {happened}")
        assert max(each.fd for each in taken) > limit
        assert happened["oom"] == 0
        for each in taken:
            os.close(each.fd)
            done(link, each.number)
        assert [outcome(sock) for sock in socks] == [0] * len(socks)


def listening() -> socket.socket:
    sock = stcp_socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    return sock


def test_a_listener_without_memory_keeps_no_worker(agent: Agent) -> None:
    """The kernel's queue has a limited number of them. Connections wait in TCP's queue until there is memory."""
    before = references()
    with contextlib.ExitStack() as opened, cgroup("stcp-listener", 256 << 20) as group:
        poor = opened.enter_context(listening())
        leave()
        other = opened.enter_context(listening())
        fill(group)
        for _ in range(30):
            opened.enter_context(socket.create_connection(poor.getsockname(), PATIENCE))
        opened.enter_context(socket.create_connection(other.getsockname(), PATIENCE))
        opened.enter_context(other.accept()[0])
        time.sleep(0.5)
        happened, served = events(group), len(agent.taken)
        print(f"{served} handshakes; {happened}")
        (group / "memory.max").write_text("max")
        assert happened["oom"] == 0
        assert served < 30
        for _ in range(30 - agent.without_memory):
            opened.enter_context(poor.accept()[0])
    eventually(lambda: references() == before, "a socket is left")


def test_a_worker_that_closes_reclaims_nothing(agent: Agent) -> None:
    """One worker of the kernel closes files for everybody. It must not wait for memory of one user to send FIN or RESET.

    Bytes that were not read use up what TCP has charged ahead, so some of these closes need a further charge.
    """
    before = references()
    with contextlib.ExitStack() as opened, cgroup("stcp-close", 256 << 20) as group:
        poor = []
        for _ in range(12):
            (group / "cgroup.procs").write_text(str(os.getpid()))
            poor.append(opened.enter_context(Pair(connected=leave)))
        asked = []
        for unread, p in enumerate(poor):
            (group / "memory.max").write_text("max")  # these calls may wait for memory of their own cgroup
            p.app.sendall(b"sent")
            for _ in range(unread):
                p.send(DATA, b"not read")
            fill(group)
            full = events(group)["max"]
            with circle(p.app.fileno()):
                p.app.close()
            reader, writer = os.pipe()
            with circle(writer):
                os.close(writer)
            with collected():
                assert select.select([reader], [], [], 10)[0], "the worker stands still"
                assert p.read_data(4) == b"sent"
                assert p.read_frame() == ((RESET, b"\x00\x08") if unread else (FIN, b""))
                assert how_it_ends(p.peer) == (0, "eof")
            os.close(reader)
            asked.append(events(group)["max"] - full)
        happened = events(group)
        print(f"charges beyond the limit: {asked}; {happened}")
        assert happened["oom"] == 0
    eventually(lambda: references() == before, "a socket is left")
    if not sum(asked):
        pytest.skip("no close needed a further charge on this kernel")
