"""Lifetimes of legs that come back: many threads, a killed owner, a thousand connections."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .hostile import LIBC
from .kept import end_application, give_back, keep, take
from .peer import (
    DATA,
    FIN,
    KEY_DOWN,
    KEY_UP,
    PATIENCE,
    Cipher,
    Relay,
    args,
    eventually,
    how_it_ends,
    read_exactly,
    references,
    stat,
    tcp_pair,
    ulp,
)


def test_one_of_many_threads_takes_the_leg() -> None:
    """Others may ask for its state or abort it meanwhile: with the checkers, a relay that is freed too early is seen."""
    for _ in range(40):
        r = keep()
        taken: list[int] = []
        go = threading.Barrier(4)

        def take_it(r: Relay = r, taken: list[int] = taken, go: threading.Barrier = go) -> None:
            go.wait(PATIENCE)
            for _ in range(50):
                with contextlib.suppress(OSError):
                    r.status()
                with contextlib.suppress(OSError):
                    give_back(r)
                    taken.append(1)
                with contextlib.suppress(OSError):
                    r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, b"")

        threads = [threading.Thread(target=take_it) for _ in range(3)]
        for thread in threads:
            thread.start()
        end_application(r)
        r.send(FIN)
        go.wait(PATIENCE)
        for thread in threads:
            thread.join()
        with contextlib.suppress(OSError):
            give_back(r)
            taken.append(1)
        assert taken == [1]
        r.close()
    eventually(lambda: references() == 0, "a reference is left")


OWNER = """
import select, signal, socket, sys
from tests.kernel.peer import abi, args, ulp
legs = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]
for leg in legs:
    ulp(leg)
for plain, wire, _ in zip(legs[::3], legs[1::3], legs[2::3]):
    wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno(), flags=abi.RELAY_KEEP))
    plain.close()
print("ready", flush=True)
for place, wire in enumerate(legs[1::3]):
    poll = select.poll()
    poll.register(wire, 0)
    if place >= 2:
        assert poll.poll(30000)
    if place >= 3:
        wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
    if place >= 4:
        wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(legs[14].fileno()))
print("there", flush=True)
signal.pause()
"""
STATES = ["at rest", "one FIN", "ended", "given back", "handed over again"]


def test_a_killed_owner_in_every_state() -> None:
    """While a connection lives, both ends see a reset; a leg between two connections ends in order."""
    legs = [(tcp_pair(), tcp_pair(), tcp_pair()) for _ in STATES]
    fds = [sock.fileno() for (_, plain), (_, wire), (_, again) in legs for sock in (plain, wire, again)]
    command = [sys.executable, "-c", OWNER, *map(str, fds)]
    with subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        for state, ((app, plain), (peer, wire), (_, again)) in zip(STATES, legs, strict=True):
            for sock in (plain, wire, again):
                sock.close()
            if state != "at rest":
                app.shutdown(socket.SHUT_WR)
                assert read_exactly(peer, 20) == Cipher(KEY_UP).seal(FIN)
            if state not in ("at rest", "one FIN"):
                peer.sendall(Cipher(KEY_DOWN).seal(FIN))
        assert owner.stdout.readline() == "there\n"
        owner.send_signal(signal.SIGKILL)
        owner.wait(PATIENCE)
    for state, ((app, _), (peer, _), (other, _)) in zip(STATES, legs, strict=True):
        lives = state in ("at rest", "one FIN")
        assert how_it_ends(app) == (0, "reset" if lives else "eof"), state
        assert how_it_ends(peer) == (0, "reset" if lives or state == "handed over again" else "eof"), state
        for sock in (app, peer, other):
            sock.close()
    eventually(lambda: references() == 0, "a leg outlived its owner")
    assert stat()["RelaysLive"] == 0


def memory_of(sock: socket.socket) -> tuple[int, ...]:
    """SO_MEMINFO: what a socket holds in its queues, and what it has reserved."""
    return struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, 55, 36))[:6]


def tcp_pages() -> int:
    """What all sockets of TCP have reserved, in pages. Each CPU counts some hundred of them for itself."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.split()[-1])


def test_thousand_connections_over_one_leg() -> None:
    """Nothing grows with them: references, memory of the leg, memory of the machine. Ciphers that stayed would be 2,000 pages."""
    before = tcp_pages()
    peer, wire = tcp_pair()
    up, down = Cipher(KEY_UP), Cipher(KEY_DOWN)
    held: list[tuple[int, ...]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for number in range(1000):
            app = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
            plain, _ = listener.accept()
            legs = app, plain, peer, wire
            r = keep(legs=legs, counters=(up.n, down.n), send_key=up.key, receive_key=down.key)
            r.up, r.down = up, down
            app.sendall(b"question")
            app.shutdown(socket.SHUT_WR)
            assert r.read_data(8) == b"question"
            r.send(DATA, b"answer")
            r.send(FIN)
            assert read_exactly(app, 6) == b"answer"
            assert how_it_ends(app) == (0, "eof")
            assert r.read_frame() == (FIN, b"")
            status = take(r)
            assert (status.send_counter, status.receive_counter) == (up.n, down.n)
            app.close()
            if number in (99, 999):
                held.append(memory_of(wire))
    assert held[0] == held[1]
    assert tcp_pages() < before + 1000
    assert stat()["RelaysLive"] == 0
    for sock in (peer, wire):
        sock.close()
    eventually(lambda: references() == 0, "a reference is left")


@pytest.mark.parametrize("what", ["bytes", "end of stream", "reset", "room"])
def test_a_thread_that_sleeps_on_a_leg_that_came_back_is_woken(what: str) -> None:
    """TCP's callbacks are those of the socket again, not the relay's."""
    r = keep()
    end_application(r)
    r.send(FIN)
    take(r)
    r.wire.settimeout(None)
    done: list[bytes | int | None] = []

    def sleep() -> None:
        with contextlib.suppress(ConnectionResetError):
            done.append(r.wire.sendall(bytes(8 << 20)) if what == "room" else r.wire.recv(5))
        done.append(1)

    thread = threading.Thread(target=sleep, daemon=True)
    thread.start()
    time.sleep(1)
    assert not done
    if what == "bytes":
        r.peer.sendall(b"bytes")
    elif what == "end of stream":
        r.peer.shutdown(socket.SHUT_WR)
    elif what == "reset":
        r.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        r.peer.close()
    else:
        read_exactly(r.peer, 8 << 20)
    thread.join(PATIENCE)
    assert done == {"bytes": [b"bytes", 1], "end of stream": [b"", 1], "reset": [1], "room": [None, 1]}[what]
    r.close()


def test_a_leg_that_another_thread_gives_back_while_it_is_handed_over() -> None:
    """Both FINs are there at the handover, so it may be over, and freed, before the system call is."""
    wanted = [-1]

    def give_back_all() -> None:
        while wanted:
            LIBC.setsockopt(wanted[0], abi.SOL_STCP, abi.GIVE_BACK, None, 0)

    thread = threading.Thread(target=give_back_all)
    thread.start()
    fin = Cipher(KEY_DOWN).seal(FIN)
    queued = ctypes.create_string_buffer(fin, len(fin))
    before = stat()["LegsGivenBack"]
    for number in range(50):
        app, plain, peer, wire = *tcp_pair(), *tcp_pair()
        app.shutdown(socket.SHUT_WR)
        for leg in (plain, wire):
            ulp(leg)
        fields = {"wire_bytes": ctypes.addressof(queued), "wire_len": len(fin), "flags": abi.RELAY_KEEP, "idle_ms": 60_000}
        raw = bytes(args(plain.fileno(), **fields))
        wanted[0] = wire.fileno()
        assert LIBC.setsockopt(wire.fileno(), abi.SOL_STCP, abi.RELAY, raw, len(raw)) == 0
        assert how_it_ends(app) == (0, "eof")
        for sock in (app, plain, peer):
            sock.close()
        eventually(lambda number=number: stat()["LegsGivenBack"] == before + number + 1, "it is not given back")  # type: ignore[misc]
        wanted[0] = -1
        wire.close()
    wanted.clear()
    thread.join()
    eventually(lambda: references() == 0, "a leg is left")
