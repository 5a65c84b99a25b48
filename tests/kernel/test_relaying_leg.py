"""What user space may do with a leg while it relays: what is refused, what poll tells, which options work."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import FIN, Relay, args, eventually, how_it_ends, references, tcp_pair, ulp
from .refusals import disconnect, protocol_is_asked, refused

SO_TIMESTAMPING = 37


@pytest.mark.parametrize("leg", ["wire", "plain"])
def test_the_bytes_of_a_relaying_leg_are_not_user_spaces(leg: str) -> None:
    r = Relay(keep_plain=True)
    sock: socket.socket = getattr(r, leg)
    sock.settimeout(None)  # with a timeout, Python asks poll first, which has nothing to say
    with refused(errno.EBUSY):
        sock.send(b"x")
    with refused(errno.EBUSY):
        sock.recv(1)
    with refused(errno.EBUSY):
        sock.recv(1, socket.MSG_PEEK)
    reader, writer = os.pipe()
    with refused(errno.EBUSY):
        os.splice(sock.fileno(), writer, 1)
    os.write(writer, b"x")
    with refused(errno.EBUSY):
        os.splice(reader, sock.fileno(), 1)
    with open("/proc/self/exe", "rb") as file, refused(errno.EBUSY):
        os.sendfile(sock.fileno(), file.fileno(), 0, 10)
    os.close(reader)
    os.close(writer)
    disconnect(sock)
    r.check_alive()
    r.close()


@pytest.mark.parametrize("leg", ["wire", "plain"])
@pytest.mark.parametrize("role", ["bare", "relaying", "ended"])
def test_accept_of_a_leg_is_refused(leg: str, role: str) -> None:
    """The kernel makes a socket for the new connection before it asks TCP, with the operations of the leg, and closes it."""
    app, plain, peer, wire = *tcp_pair(), *tcp_pair()
    ulp(plain)
    ulp(wire)
    if role != "bare":
        r = Relay(legs=(app, plain, peer, wire), keep_plain=True)
    if role == "ended":
        app.close()
        r.send(FIN)
        r.wait_ended()
    sock = {"wire": wire, "plain": plain}[leg]
    sock.settimeout(None)
    with refused(errno.EINVAL):
        sock.accept()
    for sock in (app, plain, peer, wire):
        sock.close()
    eventually(lambda: references() == 0, "a reference is left")


def test_a_relaying_wire_polls_nothing() -> None:
    """Bytes that arrive must not wake whoever watches for the end."""
    r = Relay()
    poll = select.poll()
    poll.register(r.wire, select.POLLIN | select.POLLOUT | select.POLLRDHUP | select.POLLPRI)
    assert poll.poll(0) == []
    r.check_alive()
    r.send(FIN)
    assert how_it_ends(r.app) == (0, "eof")
    assert poll.poll(100) == []
    r.app.close()
    assert r.wait_ended().end is abi.End.FINISHED
    r.close()


def test_options_of_keeping_a_connection_work_on() -> None:
    r = Relay()
    r.wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    r.wire.setsockopt(socket.SOL_TCP, socket.TCP_KEEPIDLE, 77)
    assert r.wire.getsockopt(socket.SOL_TCP, socket.TCP_KEEPIDLE) == 77
    assert r.wire.getsockopt(socket.SOL_TCP, abi.TCP_ULP, 16).rstrip(b"\0") == b"stcp"
    assert len(r.wire.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 104)) == 104
    r.close()


TAKING: list[tuple[int, int]] = [(socket.SOL_TCP, 35), (socket.SOL_TCP, 19), (socket.SOL_TCP, 20)]
"""Options that read or break the bytes: TCP_ZEROCOPY_RECEIVE, TCP_REPAIR, TCP_REPAIR_QUEUE."""
FORBIDDEN = [
    *TAKING,
    (socket.SOL_TCP, socket.TCP_CORK),
    (socket.SOL_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_IP, socket.IP_OPTIONS),
]


@pytest.mark.parametrize("leg", ["wire", "plain"])
def test_other_options_are_refused_while_relaying(leg: str) -> None:
    """An option that takes bytes out of a relay, or keeps them back, would have the peer blamed."""
    r = Relay(keep_plain=True)
    sock: socket.socket = getattr(r, leg)
    for level, number in FORBIDDEN:
        with refused(errno.EBUSY):
            sock.setsockopt(level, number, 1)
    for level, number in TAKING:
        with refused(errno.EBUSY):
            sock.getsockopt(level, number, 64)
    with refused(errno.EBUSY):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
    for number in (socket.SO_LINGER, socket.SO_RCVTIMEO, SO_TIMESTAMPING) if protocol_is_asked() else ():
        with refused(errno.EBUSY):
            sock.setsockopt(socket.SOL_SOCKET, number, bytes(16))
    r.check_alive()
    r.close()


def test_an_ended_leg_polls_its_end() -> None:
    """A kept descriptor of the plain leg tells that the relay is over."""
    r = Relay(keep_plain=True)
    r.app.close()
    r.peer.close()
    r.wait_ended()
    poll = select.poll()
    poll.register(r.plain, select.POLLIN)
    assert poll.poll(2000) == [(r.plain.fileno(), select.POLLHUP)]
    r.close()


def test_a_thread_that_waits_for_a_leg_is_woken_by_the_end() -> None:
    app, plain = tcp_pair()
    peer, wire = tcp_pair()
    plain.settimeout(None)
    woken = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            plain.recv(100)
        woken.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(0.3)
    for leg in (plain, wire):
        ulp(leg)
    wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno()))
    app.close()
    peer.close()
    assert woken.wait(10), "the reader sleeps for ever"
    for sock in (plain, wire):
        sock.close()


@pytest.mark.parametrize("leg", ["wire", "plain"])
def test_a_thread_that_waits_for_a_leg_takes_nothing_from_the_relay(leg: str) -> None:
    app, plain, peer, wire = *tcp_pair(), *tcp_pair()
    sock = {"wire": wire, "plain": plain}[leg]
    sock.settimeout(None)
    took: list[bytes | int | None] = []

    def read() -> None:
        try:
            took.append(sock.recv(100))
        except OSError as error:
            took.append(error.errno)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    time.sleep(0.3)
    r = Relay(legs=(app, plain, peer, wire), keep_plain=True)
    reader.join(10)
    assert took == [errno.EPIPE]
    r.check_alive()
    r.close()


def test_a_cork_is_drawn_at_the_handover() -> None:
    app, plain = tcp_pair()
    peer, wire = tcp_pair()
    plain.setsockopt(socket.SOL_TCP, socket.TCP_CORK, 1)
    for leg in (plain, wire):
        ulp(leg)
    assert not plain.getsockopt(socket.SOL_TCP, socket.TCP_NODELAY)
    wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno()))
    assert plain.getsockopt(socket.SOL_TCP, socket.TCP_CORK) == 0
    assert plain.getsockopt(socket.SOL_TCP, socket.TCP_NODELAY)
    for sock in (app, plain, peer, wire):
        sock.close()


def test_the_receive_buffer_keeps_to_the_limits_of_the_machine() -> None:
    paths = [Path("/proc/sys/net/core/rmem_max"), Path("/proc/sys/net/ipv4/tcp_rmem")]
    before = [path.read_text() for path in paths]
    try:
        for rmem_max, tcp_rmem, limit in (("212992", "4096 65536 131072", 131072), ("50000", "4096 65536 6291456", 100000)):
            paths[0].write_text(rmem_max)
            paths[1].write_text(tcp_rmem)
            r = Relay(keep_plain=True)
            assert r.plain is not None
            assert r.plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= limit
            r.check_alive()
            r.close()
    finally:
        for path, text in zip(paths, before, strict=True):
            path.write_text(text)
