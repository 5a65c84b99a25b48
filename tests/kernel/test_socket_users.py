"""Others who use a socket at the same time: threads at the moment it changes hands, KCM, time stamps, a CPU that goes away."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import FIN, PATIENCE, Relay, eventually, read_exactly, references, tcp_pair, ulp
from .refusals import refused

LIBC = ctypes.CDLL(None, use_errno=True)
BPF, PROG_LOAD, SOCKET_FILTER = 321, 5, 1
AF_KCM, KCM_ATTACH = 41, 0x89E0
TIMESTAMPING, TX_SOFTWARE, SOFTWARE, TX_ACK = 37, 1 << 1, 1 << 4, 1 << 9
MEMINFO = 55


def use(leg: socket.socket, stop: threading.Event) -> None:
    """All that looks at the protocol and the operations of a socket, without taking a byte."""
    poll = select.poll()
    poll.register(leg, select.POLLIN | select.POLLRDHUP)
    while not stop.is_set():
        with contextlib.suppress(OSError):
            leg.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 100)
        with contextlib.suppress(OSError):
            leg.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size)
        with contextlib.suppress(OSError):
            leg.setsockopt(socket.SOL_TCP, socket.TCP_KEEPIDLE, 77)
        with contextlib.suppress(OSError):
            leg.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"x")
        poll.poll(0)


def test_threads_use_a_socket_that_changes_hands() -> None:
    """From the first option to the giving back: whoever finds our functions on a socket finds what they need."""
    for _ in range(25):
        app, plain, peer, wire = *tcp_pair(), *tcp_pair()
        stop = threading.Event()
        threads = [threading.Thread(target=use, args=(leg, stop)) for leg in (plain, wire)]
        for thread in threads:
            thread.start()
        try:
            r = Relay(legs=(app, plain, peer, wire), flags=abi.RELAY_KEEP, keep_plain=True)
            r.check_alive()
            app.shutdown(socket.SHUT_WR)
            r.send(FIN)
            assert r.wait_ended().kept
            wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
            peer.sendall(b"ours again")
            assert read_exactly(wire, 10) == b"ours again"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        r.close()
    eventually(lambda: references() == 0, "a reference is left")


def parser() -> int:
    """A program for KCM: every message is one byte long."""
    buffer = ctypes.create_string_buffer(struct.pack("BBHi", 0xB7, 0, 0, 1) + struct.pack("BBHi", 0x95, 0, 0, 0))
    gpl = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("IIQQ", SOCKET_FILTER, 2, ctypes.addressof(buffer), ctypes.addressof(gpl)) + bytes(96)
    fd = LIBC.syscall(BPF, PROG_LOAD, ctypes.c_char_p(attributes), len(attributes))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return int(fd)


def attach(kcm: socket.socket, leg: socket.socket, program: int) -> None:
    fcntl.ioctl(kcm, KCM_ATTACH, struct.pack("ii", leg.fileno(), program))


def test_another_user_of_the_callbacks() -> None:
    """KCM and the module refuse each other's sockets, in either order and in every state."""
    subprocess.run(["modprobe", "kcm"], check=False)  # a kernel may have it without a module
    try:
        kcm = socket.socket(AF_KCM, socket.SOCK_DGRAM)
    except OSError:
        pytest.skip("this kernel has no KCM")
    program = parser()
    with kcm:
        taken, far = tcp_pair()
        attach(kcm, taken, program)
        with refused(errno.EBUSY):
            ulp(taken)
        bare, other = tcp_pair()
        ulp(bare)
        r = Relay(keep_plain=True, flags=abi.RELAY_KEEP)
        for leg in (bare, r.wire, r.plain):
            with pytest.raises(OSError, match=r"\[Errno"):
                attach(kcm, leg, program)
        r.check_alive()
        r.app.shutdown(socket.SHUT_WR)
        r.send(FIN)
        assert r.wait_ended().kept
        r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
        with pytest.raises(OSError, match=r"\[Errno"):
            attach(kcm, r.wire, program)
    r.close()
    for sock in (taken, far, bare, other):
        sock.close()
    os.close(program)
    eventually(lambda: references() == 0, "a reference is left")


def test_time_stamps_fill_no_error_queue() -> None:
    """Nobody reads it while the relay has the socket."""
    app, plain, peer, wire = *tcp_pair(), *tcp_pair()
    for leg in (plain, wire):
        leg.setsockopt(socket.SOL_SOCKET, TIMESTAMPING, TX_SOFTWARE | SOFTWARE | TX_ACK)
    wire.sendall(b"stamped")
    assert read_exactly(peer, 7) == b"stamped"
    r = Relay(legs=(app, plain, peer, wire), keep_plain=True)
    for _ in range(50):
        r.check_alive()
    for leg in (plain, wire):
        waiting = struct.unpack_from("I", leg.getsockopt(socket.SOL_SOCKET, MEMINFO, 36))[0]
        assert waiting == 0, f"{waiting} bytes in the queues"
    r.close()


def test_a_cpu_goes_away_and_comes_back() -> None:
    """A carrier may be at work on it."""
    online = Path("/sys/devices/system/cpu/cpu1/online")
    if not online.exists():
        pytest.skip("there is one CPU, or none that can go")
    relays = [Relay() for _ in range(20)]
    stop, problems = threading.Event(), []

    def talk() -> None:
        try:
            while not stop.is_set():
                for r in relays:
                    r.check_alive()
        except BaseException as exc:
            problems.append(exc)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        for state in "0101":
            online.write_text(state)
            stop.wait(0.3)
    finally:
        online.write_text("1")
        stop.set()
        talker.join(PATIENCE)
    assert not problems
    for r in relays:
        r.check_alive()
        r.close()
