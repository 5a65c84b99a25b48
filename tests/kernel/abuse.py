"""Random abuse of the module, for the kernel with the checkers: ten minutes of everything at once.

    python -m tests.kernel.abuse      inside the virtual machine; STCP_ABUSE_SECONDS, STCP_ABUSE_SEED

Workers connect, relay, abort, send junk, and are killed; meanwhile memory allocations of the module fail at random, somebody
tries to unload it, and loads it again whenever that worked. Nothing here checks what a connection did: most of them are broken
on purpose. What counts is that nobody hangs, that nothing is left, and that the kernel has nothing to say (`inside` looks).
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from stcp_proxy.relay import kernel_abi as abi

from .peer import DATA, FIN, RESET, Relay, eventually, noise, references, stat

SECONDS: Final = float(os.environ.get("STCP_ABUSE_SECONDS", "600"))
SEED: Final = int(os.environ.get("STCP_ABUSE_SEED", "1"))
WORKERS: Final = 5
FAULTS: Final = [Path("/sys/kernel/debug/failslab"), Path("/sys/kernel/debug/fail_page_alloc")]
EXPECTED: Final = (OSError, AssertionError, MemoryError)


# -- a worker ------------------------------------------------------------------------------------------------------------


def work(seed: int) -> None:
    """Relays in all states until the time is over or somebody kills us."""
    rng = random.Random(seed)
    held: list[Relay] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(*EXPECTED):
            with failing():
                r = fresh(rng)
            held.append(r)
        for r in rng.sample(held, min(len(held), 3)):
            with contextlib.suppress(*EXPECTED):
                rng.choice(ACTIONS)(r, rng)
        while len(held) > rng.randrange(30):
            r = held.pop(rng.randrange(len(held)))
            for sock in rng.sample([r.app, r.peer, r.wire, r.plain], 4):
                sock.close()


def fresh(rng: random.Random) -> Relay:
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
        lambda: sock.setsockopt(abi.SOL_STCP, rng.randrange(5), noise(rng.choice((0, 128, 264)))),
        lambda: sock.getsockopt(abi.SOL_STCP, rng.randrange(5), rng.choice((1, 304))),
        lambda: sock.setsockopt(socket.SOL_TCP, abi.TCP_ULP, b"stcp"),
        lambda: sock.listen(),
    ))()  # fmt: skip


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
    half,
    fin,
    peer_resets,
    abort,
    rst,
    shut,
    ask,
    misuse,
    close_wire,
]


# -- the others ----------------------------------------------------------------------------------------------------------


def inject(probability: int) -> None:
    """Make allocations fail, `probability` of a hundred, in the kernel's workers; our workers ask for it while they hand over."""
    for folder in FAULTS:
        if not folder.exists():
            continue
        settings = {"probability": probability, "times": -1, "verbose": 0, "task-filter": "Y"}
        # Not the pages of programs: without those even the messages of the kernel are about them.
        settings |= {"ignore-gfp-wait": "N", "ignore-gfp-highmem": "Y", "min-order": 0}
        for name, value in settings.items():
            if (folder / name).exists():
                (folder / name).write_text(str(value))
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and Path(f"/proc/{entry}/comm").read_text().startswith("kworker/u"):
                Path(f"/proc/{entry}/make-it-fail").write_text("1")


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """This process's allocations may fail too."""
    path = Path("/proc/self/make-it-fail")
    if not path.exists():
        yield
        return
    path.write_text("1")
    try:
        yield
    finally:
        path.write_text("0")


def reload(module: str) -> bool:
    """Try to unload; load again where that worked."""
    if subprocess.run(["rmmod", "stcp"], capture_output=True).returncode:
        return False
    subprocess.run(["insmod", module], check=True, capture_output=True)
    return True


def start(seed: int) -> subprocess.Popen[bytes]:
    """A new worker. The file system is served by the kernel's workers too, whose allocations may be failing just now."""
    why: OSError | None = None
    for _ in range(120):
        try:
            return subprocess.Popen([sys.executable, "-m", "tests.kernel.abuse", "worker", str(seed)], stderr=subprocess.PIPE)
        except OSError as exc:
            why = exc
        inject(0)
        time.sleep(0.5)
    raise RuntimeError("no worker can be started") from why


def main() -> None:
    rng = random.Random(SEED)
    module = os.environ["MODULE"]
    workers = [start(SEED * 1000 + i) for i in range(WORKERS)]
    serial = SEED * 1000 + WORKERS
    end = time.monotonic() + SECONDS
    counts = {"killed": 0, "reloaded": 0, "refused": 0, "faults": 0}
    relays = 0
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.1, 2))
        choice = rng.randrange(5)
        if choice == 0:
            inject(rng.choice((0, 1, 10, 50)))
            counts["faults"] += 1
        elif choice == 1:
            relays += stat().get("Relays", 0) if rng.random() < 0.1 else 0
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
                worker.wait()
            eventually(lambda: references() == 0, "a socket of the dead holds the module")
            assert reload(module)
            counts["reloaded"] += 1
        for i, worker in enumerate(workers):
            if worker.poll() is not None:
                complain(worker)
                workers[i] = start(serial)
                serial += 1
    inject(0)
    for worker in workers:
        worker.kill()
        worker.wait()
        complain(worker)
    eventually(lambda: stat()["RelaysLive"] == 0, "a relay outlived its owner")
    eventually(lambda: references() == 0, "a leg outlived its owner")
    r = Relay()
    r.check_alive()
    r.close()
    print(f"abuse: {SECONDS:g} s, seed {SEED}: {counts}; since the last load {stat()}")


def complain(worker: subprocess.Popen[bytes]) -> None:
    """A worker may be killed; it may not fail."""
    assert worker.stderr is not None
    with worker.stderr as stderr:
        words = stderr.read()
    last = words.decode().splitlines()[-1] if words else ""
    # Memory that fails may also keep it from reading its own files: not the module's fault.
    starved = last.startswith(("OSError", "MemoryError", "ImportError", "ModuleNotFoundError", "PermissionError"))
    assert worker.returncode in (-9, 0) or starved, words.decode()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        try:
            work(int(sys.argv[2]))
        except OSError as exc:
            if exc.errno != errno.EMFILE:
                raise
    else:
        try:
            main()
        finally:
            inject(0)
