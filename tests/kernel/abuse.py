"""Random abuse of the module, for the kernel with the checkers: ten minutes of everything at once.

    python -m tests.kernel.abuse      inside the virtual machine; STCP_ABUSE_SECONDS, STCP_ABUSE_SEED

Workers connect, relay, abort, send junk, and are killed; meanwhile memory allocations of the module fail at random, somebody
tries to unload it, and loads it again whenever that worked. Nothing here checks what a connection did: most of them are broken
on purpose. What counts is that nobody hangs, that nothing is left, and that the kernel has nothing to say (`inside` looks).

Once memory fails, no file may be read any more: files of the virtual machine come over 9p by way of the kernel's workers, and
after one of them had no memory, programs could not be started for good. So our workers are forks, the module is loaded from
memory, and everything mapped is locked there. And whoever asks for the protocol while it is unloaded makes the kernel start
no program to load it: that one's fork would fail aloud.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import random
import signal
import socket
import struct
import time
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

from stcp_proxy.relay import kernel_abi as abi

from .failing_memory import Faults, inject
from .peer import DATA, FIN, RESET, Relay, args, eventually, noise, references, stat, tcp_pair, ulp

SECONDS: Final = float(os.environ.get("STCP_ABUSE_SECONDS", "600"))
SEED: Final = int(os.environ.get("STCP_ABUSE_SEED", "1"))
WORKERS: Final = 5
FORK: Final = multiprocessing.get_context("fork")
LIBC: Final = ctypes.CDLL(None, use_errno=True)
INIT_MODULE, DELETE_MODULE = 175, 176  # x86-64
MCL_CURRENT, MCL_FUTURE = 1, 2
EXPECTED: Final = (OSError, AssertionError, MemoryError, OverflowError)  # the last: our own counter is at its end


# -- a worker ------------------------------------------------------------------------------------------------------------


def work(seed: int, did: Done) -> None:
    """Relays in all states until the time is over or somebody kills us."""
    rng = random.Random(seed)
    faults = Faults()
    held: list[Relay] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            r = fresh(rng, faults)
        except EXPECTED:
            did.count("refused")
        else:
            did.count("relays")
            held.append(r)
        for r in rng.sample(held, min(len(held), 3)):
            action = rng.choice(ACTIONS)
            did.count(action.__name__)
            with contextlib.suppress(*EXPECTED), faults if action in OURS else contextlib.nullcontext():
                action(r, rng)
        while len(held) > rng.randrange(30):
            r = held.pop(rng.randrange(len(held)))
            for sock in rng.sample([r.app, r.peer, r.wire, r.plain], 4):
                with faults:
                    sock.close()


def fresh(rng: random.Random, faults: Faults) -> Relay:
    counter = rng.choice((0, (1 << 20) - 2, 1 << 20, (1 << 64) - 3))
    r = Relay(
        family=rng.choice((socket.AF_INET, socket.AF_INET6)),
        counters=(counter, rng.choice((0, counter))),
        wire_bytes=rng.choice((None, lambda cipher: cipher.seal(DATA, noise(1000)), lambda _: noise(40))),
        plain_bytes=rng.choice((b"", noise(100), noise(100_000))),
        keep_plain=rng.random() < 0.2,
        idle_ms=rng.choice((0, 0, 1, 50)),
        half_close_ms=rng.choice((0, 1, 100)),
        linger_ms=rng.choice((0, 1, 100, 2000)),
        flags=rng.choice((0, abi.RELAY_KEEP)),
        during=faults,
    )
    for sock in (r.app, r.peer):
        sock.settimeout(0.05)
    return r


def talk(r: Relay, rng: random.Random) -> None:
    for _ in range(rng.randrange(10)):
        r.app.send(noise(rng.choice((1, 100, 5000, 70_000))))
        r.peer.send(r.down.seal(DATA, noise(rng.choice((0, 1, 1000, 65_516)))))
        if rng.random() < 0.7:
            r.app.recv(1 << 17)
            r.peer.recv(1 << 17)


def fill(r: Relay, rng: random.Random) -> None:
    r.app.setblocking(False)
    r.peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            r.app.send(noise(100_000))
    with contextlib.suppress(BlockingIOError):
        for _ in range(30):
            r.peer.send(r.down.seal(DATA, noise(60_000)))


def drain(r: Relay, rng: random.Random) -> None:
    for _ in range(20):
        rng.choice((r.app, r.peer)).recv(rng.choice((1, 1000, 1 << 18)))


def junk(r: Relay, rng: random.Random) -> None:
    raw = bytearray(r.down.seal(rng.choice((DATA, FIN, RESET)), noise(rng.randrange(60))))
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    r.peer.send(raw)


def header(r: Relay, rng: random.Random) -> None:
    r.peer.send(struct.pack(">BBH", rng.randrange(4), rng.choice((0, 0, 1)), rng.choice((0, 15, 16, 18, 65_532, 65_535))))


def forbidden(r: Relay, rng: random.Random) -> None:
    """Authentic, and still not allowed: a type that is none, a FIN with text, a RESET without a code."""
    kind, size = rng.choice(((rng.randrange(256), rng.randrange(300)), (FIN, 1), (RESET, rng.choice((0, 1, 259, 5000)))))
    r.peer.send(r.down.seal(kind, noise(size)))


def fuzz(r: Relay, rng: random.Random) -> None:
    """Good frames, mutated as a stream: cut, swapped, overwritten, more put between, and sent in pieces of any size."""
    frames = [r.down.seal(rng.choice((DATA, DATA, DATA, FIN, RESET)), noise(rng.choice((0, 2, 300, 20_000)))) for _ in range(4)]
    if rng.random() < 0.5:
        rng.shuffle(frames)
    raw = bytearray(b"".join(frames))
    for _ in range(rng.randrange(3)):
        at, size = rng.randrange(len(raw) + 1), rng.choice((1, 2, 4, 20, 1000))
        over = rng.choice((0, size))
        raw[at : at + over] = rng.choice((b"", noise(size), raw[:size]))
    while raw:
        sent = r.peer.send(raw[: rng.choice((1, 3, 4, 5, 19, 21, 1000, 1 << 16))])
        del raw[:sent]
        if rng.random() < 0.02:
            return


def half(r: Relay, rng: random.Random) -> None:
    r.app.shutdown(socket.SHUT_WR)


def fin(r: Relay, rng: random.Random) -> None:
    r.send(FIN)


def peer_resets(r: Relay, rng: random.Random) -> None:
    r.send(RESET, struct.pack(">H", rng.randrange(65_536)) + noise(rng.choice((0, 1, 256))))


def abort(r: Relay, rng: random.Random) -> None:
    r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, rng.randrange(20), 2, b"xy"))


def rst(r: Relay, rng: random.Random) -> None:
    sock = rng.choice((r.app, r.peer))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def shut(r: Relay, rng: random.Random) -> None:
    rng.choice((r.wire, r.plain, r.app, r.peer)).shutdown(rng.randrange(3))


def ask(r: Relay, rng: random.Random) -> None:
    r.status()
    stat()
    r.wire.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 200)
    r.wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def misuse(r: Relay, rng: random.Random) -> None:
    sock = rng.choice((r.wire, r.plain))
    rng.choice((
        lambda: sock.recv(1),
        lambda: sock.send(b"x"),
        lambda: sock.setsockopt(abi.SOL_STCP, rng.randrange(6), noise(rng.choice((0, 128, 264)))),
        lambda: sock.getsockopt(abi.SOL_STCP, rng.randrange(6), rng.choice((1, 304, 312))),
        lambda: sock.setsockopt(socket.SOL_TCP, abi.TCP_ULP, b"stcp"),
        lambda: sock.listen(),
    ))()  # fmt: skip


def finish(r: Relay, rng: random.Random) -> None:
    """Both FINs, in either order, perhaps with the next connection's bytes behind them."""
    for step in rng.sample((half, fin), 2):
        step(r, rng)
    if rng.random() < 0.5:
        r.peer.send(noise(rng.choice((1, 24, 5000))))


def give_back(r: Relay, rng: random.Random) -> None:
    r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")


def hand_over_again(r: Relay, rng: random.Random) -> None:
    """The next connection over a wire leg that was given back."""
    app, plain = tcp_pair(r.wire.family)
    try:
        r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
        ulp(plain)
        r.wire.setsockopt(abi.SOL_STCP, abi.RELAY, args(plain.fileno(), flags=rng.choice((0, abi.RELAY_KEEP))))
    except OSError:
        app.close()
        plain.close()
        raise
    for sock in (r.app, r.plain):
        sock.close()
    r.app, r.plain = app, plain
    r.app.settimeout(0.05)


def close_wire(r: Relay, rng: random.Random) -> None:
    r.wire.close()


ACTIONS: Final = [
    talk,
    talk,
    talk,
    fill,
    drain,
    drain,
    junk,
    header,
    forbidden,
    fuzz,
    half,
    fin,
    peer_resets,
    abort,
    rst,
    shut,
    ask,
    misuse,
    finish,
    finish,
    give_back,
    hand_over_again,
    close_wire,
]
OURS: Final = (abort, ask, misuse, shut, give_back, close_wire)  # one or few system calls that are the module's


# -- what was done -------------------------------------------------------------------------------------------------------


class Done:
    """Counters in memory that a killed worker leaves behind: one row for each worker's place, so that nobody needs a lock."""

    NAMES: Final = ["relays", "refused", *dict.fromkeys(action.__name__ for action in ACTIONS)]

    def __init__(self, fd: int, row: int) -> None:
        self.cells = memoryview(mmap.mmap(fd, WORKERS * len(self.NAMES) * 8)).cast("Q")
        self.row = row

    @classmethod
    def new(cls) -> int:
        fd = os.memfd_create("abuse", 0)
        os.ftruncate(fd, WORKERS * len(cls.NAMES) * 8)
        return fd

    def count(self, name: str) -> None:
        self.cells[self.row * len(self.NAMES) + self.NAMES.index(name)] += 1

    def total(self) -> dict[str, int]:
        return {name: sum(self.cells[i :: len(self.NAMES)]) for i, name in enumerate(self.NAMES)}


# -- the others ----------------------------------------------------------------------------------------------------------


def reload(module: bytes) -> bool:
    """Try to unload; load again where that worked."""
    if LIBC.syscall(DELETE_MODULE, b"stcp", os.O_NONBLOCK):
        return False
    if LIBC.syscall(INIT_MODULE, module, ctypes.c_ulong(len(module)), b"protocol=253"):
        raise OSError(ctypes.get_errno(), "the module does not load again")
    return True


def start(seed: int, fd: int, row: int) -> ForkProcess:
    """A new worker."""
    worker = FORK.Process(target=work, args=(seed, Done(fd, row)), daemon=True)
    worker.start()
    return worker


def settle() -> None:
    """Everything that will run has run once and stays in memory, before memory fails."""
    r = Relay()
    r.check_alive()
    r.close()
    worker = FORK.Process(target=noise, args=(1,))
    worker.start()
    worker.join()
    Path("/proc/sys/kernel/modprobe").write_text("\n")
    if LIBC.mlockall(MCL_CURRENT | MCL_FUTURE):
        raise OSError(ctypes.get_errno(), "mlockall")


def main() -> None:
    rng = random.Random(SEED)
    module = Path(os.environ["MODULE"]).read_bytes()
    settle()
    fd = Done.new()
    workers = [start(SEED * 1000 + i, fd, i) for i in range(WORKERS)]
    serial = SEED * 1000 + WORKERS
    end = time.monotonic() + SECONDS
    counts = {"killed": 0, "reloaded": 0, "refused": 0, "faults": 0}
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.1, 2))
        choice = rng.randrange(5)
        if choice == 0:
            inject(rng.choice((0, 1, 10, 50)))
            counts["faults"] += 1
        elif choice == 1:
            counts["reloaded" if reload(module) else "refused"] += 1
        elif choice == 2:
            victim = rng.randrange(WORKERS)
            workers[victim].kill()
            counts["killed"] += 1
        elif choice == 3 and rng.random() < 0.2:
            # All at once, so that unloading has a chance.
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.join()
            eventually(lambda: references() == 0, "a socket of the dead holds the module")
            assert reload(module)
            counts["reloaded"] += 1
        for i, worker in enumerate(workers):
            if worker.exitcode is not None:
                complain(worker)
                workers[i] = start(serial, fd, i)
                serial += 1
    inject(0)
    for worker in workers:
        worker.kill()
        worker.join()
        complain(worker)
    eventually(lambda: stat()["RelaysLive"] == 0, "a relay outlived its owner")
    eventually(lambda: references() == 0, "a leg outlived its owner")
    r = Relay()
    r.check_alive()
    r.close()
    print(f"abuse: {SECONDS:g} s, seed {SEED}: {counts}")
    print(f"abuse: what the workers did: {Done(fd, 0).total()}")
    print(f"abuse: the module since it was last loaded: {stat()}")


def complain(worker: ForkProcess) -> None:
    """A worker may be killed; it may not fail."""
    assert worker.exitcode in (-signal.SIGKILL, 0), f"a worker ended with {worker.exitcode}"


if __name__ == "__main__":
    try:
        main()
    finally:
        inject(0)
