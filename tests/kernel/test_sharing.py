"""Nobody stops or slows the relays of others, and everybody pays for its own memory."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .hostile import abort_fuse
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
    free_memory,
    read_exactly,
    references,
    tcp_pair,
    ulp,
)

NOBODY = 65534
CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def lock_holder(*how: str, says: str = "held") -> Iterator[None]:
    """A user without privileges holds the locks of legs of its own relays.

    Args:
        how: further arguments of tests/kernel/hostile.py.
        says: its first line.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chmod(folder, 0o777)
        subprocess.run(["modprobe", "fuse"], check=False)  # a kernel may have it without a module
        os.chmod("/dev/fuse", 0o666)
        # fmt: off
        command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", sys.executable, "-m",
                   "tests.kernel.hostile", folder, *how]
        # fmt: on
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                # Under the checkers Python needs half a minute to start.
                assert select.select([process.stdout], [], [], 3 * PATIENCE)[0], f"it does not come to {says!r}"
                assert process.stdout.readline() == f"{says}\n"
                yield
            finally:
                abort_fuse()
                process.kill()


def test_a_user_that_holds_its_sockets_stops_nobody_else() -> None:
    victim = Relay()
    victim.check_alive()
    with lock_holder():
        for sock in (victim.app, victim.peer):
            sock.settimeout(10)
        for _ in range(5):
            victim.check_alive()
        fresh = Relay()
        fresh.check_alive()
        fresh.close()
    victim.close()
    eventually(lambda: references() == 0, "a leg of the killed user is left")


def test_close_does_not_wait_for_a_leg_that_somebody_holds() -> None:
    """The last reference of a wire leg may end in the kernel's one worker that closes files: it would wait there for ever."""
    with lock_holder("closes", says="closed"):
        victim = Relay()
        victim.check_alive()
        victim.close()
    eventually(lambda: references() == 0, "a leg of the killed user is left")


def finish(linger: int) -> tuple[socket.socket, socket.socket, socket.socket]:
    """A relay that ends in order while its application reads nothing. Returns application, peer, wire."""
    app, plain = tcp_pair()
    peer, wire = tcp_pair()
    app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
    ulp(plain)
    ulp(wire)
    wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno()))
    plain.close()
    down = Cipher(KEY_DOWN)
    for _ in range(10):
        peer.sendall(down.seal(DATA, bytes(60_000)))
    app.shutdown(socket.SHUT_WR)
    peer.sendall(down.seal(FIN))
    return app, peer, wire


def test_linger_keeps_no_worker_of_the_kernel() -> None:
    """The plain leg is closed by the kernel's one worker for that; SO_LINGER would have it sleep, and all others' files wait."""
    app, peer, wire = finish(linger=1000)
    eventually(lambda: abi.Status.unpack(wire.getsockopt(abi.SOL_STCP, abi.STATUS, abi.STATUS_ARGS.size)).ended, "it goes on")
    wire.close()
    eventually(lambda: references() == 0, "the plain leg lingers", 10)
    app.close()
    peer.close()


@contextlib.contextmanager
def cgroup(name: str, limit: int) -> Iterator[Path]:
    if not (CGROUPS / "cgroup.procs").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", str(CGROUPS)], check=True)
    (CGROUPS / "cgroup.subtree_control").write_text("+memory")
    group = CGROUPS / name
    group.mkdir(exist_ok=True)
    (group / "memory.max").write_text(str(limit))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield group
    finally:
        (CGROUPS / "cgroup.procs").write_text(str(os.getpid()))
        eventually(lambda: not (group / "cgroup.procs").read_text(), "the cgroup is in use")


def events(group: Path) -> dict[str, int]:
    """What has happened to a cgroup for want of memory (memory.events)."""
    return {name: int(value) for name, value in (line.split() for line in (group / "memory.events").read_text().splitlines())}


def fill(group: Path) -> None:
    """Lower the limit to what is used. By memory.high the CPUs give back what they keep in store for the cgroup."""
    (group / "memory.max").write_text("max")
    (group / "memory.high").write_text("0")
    (group / "memory.high").write_text("max")
    (group / "memory.max").write_text((group / "memory.current").read_text())


def test_the_memory_of_relays_is_charged() -> None:
    """Pieces of frames in many relays: what the machine has less, the cgroup has more."""
    with cgroup("stcp-memory", 256 << 20) as group:
        current = group / "memory.current"
        relays = [Relay() for _ in range(60)]
        time.sleep(0.5)
        free, charged = free_memory(), int(current.read_text())
        piece = b"\x00\x00\xff\xfc" + bytes(60_000)
        for r in relays:
            r.peer.sendall(piece)
        eventually(lambda: all(r.status().buffered >= 60_000 for r in relays), "the pieces are not there")
        taken, paid = free - free_memory(), int(current.read_text()) - charged
        print(f"{taken} bytes taken, {paid} charged")
        assert paid > 60 * 60_000 * 0.9
        for r in relays:
            r.close()
    eventually(lambda: references() == 0, "a relay is left")


def circle() -> socket.socket:
    """A relay whose legs are connected to themselves: its bytes go round for ever."""

    def to_itself() -> socket.socket:
        while True:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            try:
                sock.connect(sock.getsockname())
            except OSError:
                sock.close()
            else:
                return sock

    plain, wire = to_itself(), to_itself()
    plain.sendall(b"go round and round" * 50)
    ulp(plain)
    ulp(wire)
    wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno(), send_key=KEY_UP, receive_key=KEY_UP))
    plain.close()
    return wire


def round_trip(victim: Relay, count: int = 30) -> float:
    """Median of seconds."""
    times = []
    for _ in range(count):
        began = time.monotonic()
        victim.check_alive()
        times.append(time.monotonic() - began)
    return statistics.median(times)


@contextlib.contextmanager
def circles(count: int) -> Iterator[None]:
    """Another user's relays, all of them at work."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setuid(NOBODY)
            held = [circle() for _ in range(count)]
            os.write(writer, b"x")
            time.sleep(600)
            del held
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_a_bystander_does_not_feel_how_many_relays_others_have() -> None:
    """With ten hostile relays the CPUs are full; ten times as many must not make it worse. Alone is measured too.

    Other work of the machine makes a measurement longer and never shorter, so the best of five turns counts.
    """
    victim = Relay()
    try:
        victim.check_alive()
        assert min(_times_worse(victim) for _ in range(5)) < 2
    finally:
        victim.close()
    eventually(lambda: references() == 0, "a relay is left")


def _times_worse(victim: Relay) -> float:
    """How many times longer a round trip takes beside 100 hostile relays than beside 10 or alone."""
    alone = round_trip(victim)
    with circles(10):
        few = round_trip(victim)
    with circles(100):
        many = round_trip(victim)
    print(f"round trip: alone {1e3 * alone:.1f} ms, beside 10 hostile relays {1e3 * few:.1f} ms, beside 100 {1e3 * many:.1f} ms")
    return many / max(few, alone)


def test_an_owner_has_a_limited_number_of_relays() -> None:
    limit = Path("/sys/module/stcp/parameters/max_relays")
    before = limit.read_text()
    first = Relay()
    app, plain = tcp_pair()
    peer, wire = tcp_pair()
    ulp(plain)
    ulp(wire)
    limit.write_text("1")
    try:
        with pytest.raises(OSError, match=r"[Qq]uota"):
            wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno()))
    finally:
        limit.write_text(before)
    first.check_alive()
    first.close()
    for sock in (app, plain, peer, wire):
        sock.close()


def test_a_cgroup_at_its_limit_stops_no_relay() -> None:
    """Its processes sleep, so nobody reclaims. What has come must pass, for it keeps the memory that buffers lack."""
    legs = [(tcp_pair(), tcp_pair()) for _ in range(20)]
    fds = [str(sock.fileno()) for (_, plain), (_, wire) in legs for sock in (plain, wire)]
    script = (
        "import signal, socket, sys; from tests.kernel.peer import abi, args, ulp;"
        "fds = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]; [ulp(leg) for leg in fds];"
        "[w.setsockopt(abi.SOL_STCP, abi.RELAY, args(p.fileno())) for p, w in zip(fds[::2], fds[1::2])];"
        "print('ready', flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", script, *fds]
    with cgroup("stcp-limit", 512 << 20) as group:
        owner = subprocess.Popen(command, pass_fds=[int(fd) for fd in fds], stdout=subprocess.PIPE, text=True)
        (CGROUPS / "cgroup.procs").write_text(str(os.getpid()))
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == "ready\n"
            fill(group)
            frame = Cipher(KEY_DOWN).seal(DATA, bytes(60_000))
            for _, (peer, _) in legs:
                peer.sendall(frame[:-1])
            for (app, _), (peer, _) in legs:
                peer.sendall(frame[-1:])
                assert read_exactly(app, 60_000) == bytes(60_000)
            assert events(group)["oom_kill"] == 0
        finally:
            owner.kill()
            owner.wait()
            owner.stdout.close()
    for (app, plain), (peer, wire) in legs:
        for sock in (app, plain, peer, wire):
            sock.close()
    eventually(lambda: references() == 0, "a relay is left")


def test_bytes_for_a_full_cgroup_keep_no_carrier() -> None:
    """What arrives while a carrier has the leg is charged to its owner's cgroup; the carrier must not wait for memory for that.

    Nothing can be reclaimed here, so who waits calls the OOM killer: the kernel's worker once did. Who does not wait is refused.
    """
    with contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2 * 8)]
        near = [opened.enter_context(socket.create_connection(each.getsockname(), PATIENCE)) for each in listeners]
        group = opened.enter_context(cgroup("stcp-full", 512 << 20))
        far = [opened.enter_context(each.accept()[0]) for each in listeners]  # TCP charges the cgroup of accept()
        for leg in far:
            ulp(leg)
        script = (
            "import signal, socket, sys; from tests.kernel.peer import abi, args;"
            "fds = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]];"
            "[w.setsockopt(abi.SOL_STCP, abi.RELAY, args(p.fileno())) for p, w in zip(fds[::2], fds[1::2])];"
            "print('ready', flush=True); signal.pause()"
        )
        fds = [leg.fileno() for leg in far]
        command = [sys.executable, "-c", script, *map(str, fds)]
        owner = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True)
        opened.callback(owner.wait)
        opened.callback(owner.kill)
        (CGROUPS / "cgroup.procs").write_text(str(os.getpid()))
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        owner.stdout.close()
        for leg in far:
            leg.close()
        (group / "memory.max").write_text(str(int((group / "memory.current").read_text()) + (256 << 10)))
        end = time.monotonic() + 6
        passed = [0] * len(listeners)

        def flood(peer: socket.socket) -> None:
            cipher = Cipher(KEY_DOWN)
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    peer.sendall(cipher.seal(DATA, bytes(30_000)))

        def drain(app: socket.socket, at: int) -> None:
            app.settimeout(1)
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    passed[at] += len(app.recv(1 << 16))

        threads = [threading.Thread(target=flood, args=(peer,)) for peer in near[1::2]]
        threads += [threading.Thread(target=drain, args=(app, at)) for at, app in enumerate(near[::2])]
        for peer in near[1::2]:
            peer.settimeout(1)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        happened = events(group)
        (group / "memory.max").write_text("max")
        print(f"{sum(passed)} bytes passed; {happened}")
        assert sum(passed) > 0
        assert happened["max"] > 0
        assert happened["oom"] == 0
    eventually(lambda: references() == 0, "a relay is left")
