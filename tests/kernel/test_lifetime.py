"""Who may die when: owners, applications, peers, namespaces, the module."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .peer import (
    DATA,
    FIN,
    KEY_DOWN,
    PATIENCE,
    Cipher,
    Relay,
    eventually,
    how_it_ends,
    noise,
    read_exactly,
    references,
    stat,
    tcp_pair,
    ulp,
)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_the_owner_closes_the_wire() -> None:
    r = Relay()
    r.check_alive()
    r.wire.close()
    assert how_it_ends(r.app) == (0, "reset")
    assert how_it_ends(r.peer) == (0, "reset")
    r.close()


def test_the_owner_keeps_the_plain_descriptor_too() -> None:
    r = Relay(keep_plain=True)
    r.check_alive()
    r.app.close()
    r.send(FIN)
    assert r.wait_ended().end is abi.End.FINISHED
    r.wire.close()
    r.plain.settimeout(None)
    with pytest.raises(OSError, match="busy"):
        r.plain.recv(1)
    r.close()


@pytest.mark.parametrize("way", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
@pytest.mark.parametrize("leg", ["wire", "plain"])
def test_the_owner_shuts_a_leg_down(leg: str, way: int) -> None:
    """Nonsense, but it must end as a broken connection and not worse."""
    r = Relay(keep_plain=True, linger_ms=200)
    r.check_alive()
    getattr(r, leg).shutdown(way)
    with contextlib.suppress(OSError):
        r.app.sendall(b"x")
        r.send(DATA, b"x")
    r.app.close()
    r.peer.close()
    assert r.wait_ended().end in (abi.End.TRUNCATED, abi.End.PLAIN_RESET)
    r.close()


def test_the_wire_descriptor_is_inherited_and_the_relay_lives_with_its_last_holder() -> None:
    r = Relay()
    copy = os.dup(r.wire.fileno())
    r.wire.close()
    r.check_alive()
    os.close(copy)
    assert how_it_ends(r.app) == (0, "reset")
    r.close()


def test_killed_owner_of_many_loaded_relays() -> None:
    """SIGKILL while 60 relays are full of bytes in both directions: everything is reset, nothing is left."""
    relays = [(tcp_pair(), tcp_pair()) for _ in range(60)]
    fds = [str(sock.fileno()) for (_, plain), (_, wire) in relays for sock in (plain, wire)]
    script = (
        "import signal, socket, sys; from tests.kernel.peer import abi, args, ulp;"
        "fds = [int(fd) for fd in sys.argv[1:]];"
        "legs = [socket.socket(fileno=fd) for fd in fds]; [ulp(leg) for leg in legs];"
        "[w.setsockopt(abi.SOL_STCP, abi.RELAY, args(p.fileno())) for p, w in zip(legs[::2], legs[1::2])];"
        "[p.close() for p in legs[::2]]; print('ready', flush=True); signal.pause()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, *fds], pass_fds=[int(fd) for fd in fds], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    for (app, plain), (peer, wire) in relays:
        plain.close()
        wire.close()
        frame = Cipher(KEY_DOWN).seal(DATA, noise(60_000))
        for sock, data in ((app, noise(3_000_000)), (peer, frame)):
            sock.setblocking(False)
            sock.send(data)
    assert stat()["RelaysLive"] == 60
    owner.kill()
    owner.wait()
    owner.stdout.close()
    eventually(lambda: stat()["RelaysLive"] == 0, "a relay outlived its owner")
    eventually(lambda: references() == 0, "a leg outlived its owner")
    for (app, _), (peer, _) in relays:
        for sock in (app, peer):
            sock.settimeout(PATIENCE)
            assert how_it_ends(sock)[1] == "reset"
            sock.close()


def test_churn_from_eight_threads() -> None:
    """Hundreds of relays with every kind of end, several at once."""
    problems: list[BaseException] = []

    def churn(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(40):
                one(rng)
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    eventually(lambda: stat()["RelaysLive"] == 0, "a relay is left")
    eventually(lambda: references() == 0, "a reference is left")


def one(rng: random.Random) -> None:
    r = Relay(keep_plain=rng.random() < 0.2, linger_ms=rng.choice((1, 50, 2000)))
    with contextlib.suppress(OSError, AssertionError):
        for sock in (r.app, r.peer):
            sock.settimeout(1)
        if rng.random() < 0.8:
            r.app.sendall(noise(rng.choice((1, 100, 70_000))))
            r.send(DATA, noise(rng.choice((1, 100, 60_000))))
        action = rng.randrange(8)
        if action == 0:
            reset(r.app)
        elif action == 1:
            reset(r.peer)
        elif action == 2:
            r.wire.close()
        elif action == 3:
            r.app.shutdown(socket.SHUT_WR)
            r.send(FIN)
        elif action == 4:
            r.peer.sendall(noise(30))
        elif action == 5:
            r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b""))
        elif action == 6:
            r.peer.close()
        r.wire.close() if rng.random() < 0.5 else None
    r.close()


def test_the_owner_closes_at_the_moment_the_relay_finishes() -> None:
    """Whoever comes second waits for the first: the kernel with the checkers tells where it did not."""

    def meet(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(30):
            r = Relay()
            r.app.shutdown(socket.SHUT_WR)
            r.send(FIN)
            moment = time.monotonic() + rng.random() * 0.01
            while time.monotonic() < moment and r.status().end == abi.End.NONE:
                pass
            r.wire.close()
            r.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(meet, range(8)))
    eventually(lambda: references() == 0, "a reference is left")


def test_a_relay_may_end_before_its_owner_has_handed_it_over() -> None:
    """What was read already ends it in its first turn, while CPUs are short."""

    def hand_over(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            r = Relay(wire_bytes=lambda _: bytes(40), plain_bytes=rng.choice((b"", b"x")))
            assert r.wait_ended().end is abi.End.BAD_FRAME
            r.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hand_over, range(8)))
    eventually(lambda: references() == 0, "a reference is left")


def worker_seconds() -> float:
    """CPU time of the kernel's workers that belong to no CPU, where the carriers run."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = path.read_text().split(") ", 1)
            if "(kworker/u" in name:
                ticks += sum(int(word) for word in rest.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_a_relay_that_lingers_is_at_rest() -> None:
    """Waiting for the peer's end costs no CPU: what aborting the plain leg reports wakes the relay once, not for ever."""
    r = Relay(linger_ms=4000)
    r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b""))
    assert how_it_ends(r.app) == (0, "reset")
    before = worker_seconds()
    time.sleep(1.5)
    assert worker_seconds() - before < 0.5
    assert not r.status().ended
    r.peer.close()
    assert r.wait_ended().end is abi.End.ABORTED
    r.close()


def test_rmmod_is_refused_while_a_socket_has_the_protocol() -> None:
    near, far = tcp_pair()
    ulp(near)
    assert subprocess.run(["rmmod", "stcp"], capture_output=True).returncode != 0
    near.close()
    far.close()
    r = Relay()
    assert subprocess.run(["rmmod", "stcp"], capture_output=True).returncode != 0
    r.check_alive()
    r.close()
    eventually(lambda: references() == 0, "a reference is left")


def test_a_namespace_goes_away_under_its_relay() -> None:
    """The sockets keep their namespace; the counters go with it."""
    before = stat()
    script = (
        "import sys, subprocess; subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True);"
        "from tests.kernel.peer import Relay, stat; r = Relay(); r.check_alive(); s = stat();"
        "assert (s['Relays'], s['RelaysLive'], s['BytesToWire']) == (1, 1, 4), s; r.close();"
        "q = Relay(); q.check_alive()"
    )
    subprocess.run(["unshare", "-n", sys.executable, "-c", script], check=True, timeout=60)
    assert stat()["Relays"] == before["Relays"]
    eventually(lambda: references() == 0, "a reference is left")


def test_admin_kills_a_leg() -> None:
    """ss -K: the kernel destroys a socket from outside."""
    r = Relay()
    r.check_alive()
    port = r.app.getpeername()[1]
    done = subprocess.run(["ss", "-K", "sport", "=", f":{port}"], capture_output=True, text=True)
    assert done.returncode == 0
    assert r.read_frame() == (2, b"\x00\x08")
    r.peer.close()
    assert r.wait_ended().end is abi.End.PLAIN_RESET
    r.close()


def test_deadlines() -> None:
    idle = Relay(idle_ms=300)
    half = Relay(half_close_ms=300)
    half.app.shutdown(socket.SHUT_WR)
    assert half.read_frame() == (FIN, b"")
    assert idle.read_frame() == (2, b"\x00\x09idle for 0.300 s")
    assert half.read_frame() == (2, b"\x00\x09half-closed and idle for 0.300 s")
    for r, end in ((idle, abi.End.IDLE_TIMEOUT), (half, abi.End.HALF_CLOSE_TIMEOUT)):
        r.peer.close()
        status = r.wait_ended()
        assert (status.end, status.code) == (end, 9)
        r.close()


def test_a_stuck_wire_gives_way_after_the_linger() -> None:
    r = Relay(linger_ms=300)
    r.app.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            r.app.send(bytes(100_000))
    r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b""))
    assert r.wait_ended(10).end is abi.End.ABORTED
    r.close()


def test_a_short_linger_is_kept() -> None:
    """The look at what was sent, once a second, must not put the deadline off."""
    r = Relay(linger_ms=100)
    r.check_alive()
    time.sleep(2.5)  # nobody looks any more
    began = time.monotonic()
    r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b""))
    assert r.wait_ended(10).end is abi.End.ABORTED
    assert time.monotonic() - began < 0.8
    r.close()


def test_many_relays_at_once() -> None:
    relays = [Relay() for _ in range(200)]
    for r in relays:
        r.app.sendall(b"question")
    for r in relays:
        assert r.read_data(8) == b"question"
        r.send(DATA, b"answer")
    for r in relays:
        assert read_exactly(r.app, 6) == b"answer"
        r.close()
