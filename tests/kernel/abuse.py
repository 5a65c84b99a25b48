"""Random abuse of the module, for the kernel with the checkers: ten minutes of everything at once.

    python -m tests.kernel.abuse      inside the virtual machine; STCP_ABUSE_SECONDS, STCP_ABUSE_SEED

Workers connect, relay, abort, send junk, and are killed: some with relays (abuse_relays.py), some with sockets of the protocol
(abuse_sockets.py), whose agent answers well or not and dies at any point (abuse_agent.py). Meanwhile memory allocations of the
module fail at random, a user without privileges holds the locks of its relays (hostile.py), somebody tries to unload the module,
and loads it again whenever that worked. Nothing here checks what a connection did: most of them are broken on purpose. What
counts is that nobody hangs, that nothing is left, and that the kernel has nothing to say (`inside` looks).

Once memory fails, no file may be read any more: files of the virtual machine come over 9p by way of the kernel's workers, and
after one of them had no memory, programs could not be started for good. So all processes are forks, the module is loaded from
memory, and everything mapped is locked there. And whoever asks for the protocol while it is unloaded makes the kernel start
no program to load it: that one's fork would fail aloud.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

from . import abuse_agent, abuse_relays, abuse_sockets
from .abuse_common import EXPECTED, FORK, LIBC, LONGEST_DEATH, SECONDS, SEED, Counts, bury, objects, reload
from .failing_memory import inject
from .hostile import abort_fuse, hold_all
from .netlink_agent import Agent
from .peer import Relay, eventually, noise, read_exactly, references, stat
from .sockets import Pair, address, stcp_socket, sysctl

WORKERS: Final[list[Callable[[int, Counts], None]]] = [abuse_agent.serve, *[abuse_relays.work] * 3, *[abuse_sockets.work] * 3]
MCL_CURRENT, MCL_FUTURE = 1, 2
NOBODY: Final = 65534
SYSCTLS: Final = Path("/proc/sys/net/stcp")
LEAK: Final = 200
"""Objects of kmalloc that a run may leave behind where kmemleak does not look."""
OWN: Final = ("killed", "reload", "inject", "attack", "all dead")


class Crowd:
    """The worker processes, each in its place. A worker that has ended is replaced.

    Attributes:
        counts: what they have done; the last row is ours.
    """

    def __init__(self) -> None:
        names = [*OWN, *abuse_relays.NAMES, *abuse_sockets.NAMES, *abuse_agent.NAMES]
        self.counts = Counts(names, len(WORKERS) + 1)
        self.counts.row = len(WORKERS)
        self.serial = SEED * 1000
        self.places = [self._start(place) for place in range(len(WORKERS))]

    def _start(self, place: int) -> ForkProcess:
        self.serial += 1
        worker = FORK.Process(target=self._work, args=(place, self.serial), daemon=True)
        worker.start()
        return worker

    def _work(self, place: int, seed: int) -> None:
        self.counts.row = place
        WORKERS[place](seed, self.counts)

    def replace(self) -> None:
        for place, worker in enumerate(self.places):
            if worker.exitcode is not None:
                bury(worker)
                self.places[place] = self._start(place)

    def bury(self) -> None:
        """All at once."""
        for worker in self.places:
            worker.kill()
        for worker in self.places:
            bury(worker)


class Attacker:
    """A user without privileges that holds the locks of its own relays, now and then.

    Attributes:
        process: the attack under way.
        until: when it is over: its threads wait for locks, and the kernel complains of those that wait for minutes.
    """

    def __init__(self) -> None:
        self.process: ForkProcess | None = None
        self.until = 0.0
        self.folder = tempfile.mkdtemp(dir="/dev/shm")
        os.chmod(self.folder, 0o777)
        subprocess.run(["modprobe", "fuse"], check=False)
        self.possible = Path("/dev/fuse").exists()
        if self.possible:
            os.chmod("/dev/fuse", 0o666)
            abort_fuse()  # mounts what it needs

    def start(self) -> bool:
        if not self.possible or self.process:
            return False
        self.process = FORK.Process(target=self._attack, daemon=True)
        self.process.start()
        self.until = time.monotonic() + 20
        return True

    def _attack(self) -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with contextlib.suppress(*EXPECTED):  # the module may be gone
            hold_all(self.folder)
            time.sleep(SECONDS)

    def stop(self) -> None:
        """Kill it, and then let its system calls go, which it cannot survive."""
        if self.process:
            self.process.kill()
            abort_fuse()
            bury(self.process)
            self.process = None


def settle(attacker: Attacker) -> None:
    """Everything that will run has run once and stays in memory, before memory fails."""
    check_alive()
    if attacker.start():
        time.sleep(3)
        attacker.stop()
    worker = FORK.Process(target=noise, args=(1,))
    worker.start()
    worker.join()
    check_nothing_left()
    Path("/proc/sys/kernel/modprobe").write_text("\n")
    if LIBC.mlockall(MCL_CURRENT | MCL_FUTURE):
        raise OSError(ctypes.get_errno(), "mlockall")


def check_alive() -> None:
    """A fresh relay works, and so do fresh sockets with each kind of peer. No handshake is left in the namespace's count."""
    r = Relay()
    r.check_alive()
    r.close()
    with Agent(), sysctl("max_embryos", "1"):
        for listens in (False, True):
            with Pair(listens=listens) as one:
                one.check_alive()
    with Agent(), stcp_socket() as listener, stcp_socket() as near:
        listener.bind((address(listener.family), 0))
        listener.listen()
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            near.sendall(b"ping")
            assert read_exactly(far, 4) == b"ping"


def check_nothing_left() -> None:
    """Everybody is dead."""
    eventually(lambda: references() == 0, "something holds the module that nobody holds", LONGEST_DEATH)
    left = {name: value for name, value in stat().items() if name in ("RelaysLive", "SessionsLive") and value}
    assert not left, f"left behind: {left}"


def stir(rng: random.Random, crowd: Crowd, attacker: Attacker, module: bytes) -> None:
    """One thing that happens to all of them."""
    what = rng.choices(OWN, (4, 4, 4, 2, 1))[0]
    crowd.counts.tried(what)
    good = True
    if what == "inject":
        inject(rng.choice((0, 1, 10, 50)))
    elif what == "reload":
        good = reload(module)
    elif what == "killed":
        bury(rng.choice(crowd.places))
    elif what == "attack":
        if attacker.process:
            attacker.stop()
        else:
            good = attacker.start()
    else:
        # All at once, so that unloading has a chance.
        attacker.stop()
        crowd.bury()
        if rng.random() < 0.5:
            check_nothing_left()
        eventually(lambda: reload(module), "something holds the module that nobody holds", LONGEST_DEATH)
    if good:
        crowd.counts.good(what)
    with contextlib.suppress(OSError):
        (SYSCTLS / "handshake_ms").write_text(rng.choice(("100", "2000", "10000")))
        (SYSCTLS / "max_embryos").write_text(rng.choice(("4", "4096", "4096")))


def main() -> None:
    rng = random.Random(SEED)
    module = Path(os.environ["MODULE"]).read_bytes()
    attacker = Attacker()
    settle(attacker)
    before = objects()
    crowd = Crowd()
    print(f"abuse: {SECONDS:g} s, seed {SEED}", flush=True)
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            time.sleep(0.1)
            if rng.random() < 0.1:
                stir(rng, crowd, attacker, module)
            crowd.replace()
            if time.monotonic() > attacker.until:
                attacker.stop()
    finally:
        inject(0)
        print(f"abuse: succeeded/tried: {crowd.counts}", flush=True)
    crowd.bury()
    attacker.stop()
    check_nothing_left()
    print(f"abuse: the module since it was last loaded: {stat()}")
    assert reload(module)
    check_alive()
    check_nothing_left()
    print(f"abuse: objects of kmalloc: {before} before, {objects()} now", flush=True)
    if not Path("/sys/kernel/debug/kmemleak").exists():
        # What is freed after a grace period of RCU goes later.
        eventually(lambda: objects() < before + LEAK, f"more than {LEAK} objects of kmalloc are left")
    needed = ("killed", "all dead", *abuse_relays.NEEDED, *abuse_sockets.NEEDED, *abuse_agent.NEEDED)
    missing = [name for name in needed if not crowd.counts.of(name)[1]]
    assert not missing or SECONDS < 30, f"never succeeded: {missing}"


if __name__ == "__main__":
    try:
        main()
    except AssertionError as exc:
        sys.exit(f"abuse: FAILED: {exc}; seed {SEED}")
    finally:
        inject(0)
