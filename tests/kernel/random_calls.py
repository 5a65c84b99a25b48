"""Random system calls to every entry point of the module, on descriptors in every state, from several processes at once.

    tests/kernel/run random           inside the virtual machine; STCP_RANDOM_SECONDS, STCP_RANDOM_SEED, STCP_RANDOM_PROCESSES

`random_states` makes connections, `random_operations` calls, `random_agent` ends the handshakes, well or not. Some processes
have a network namespace of their own. Nothing looks at the result of a call. After each round everybody is killed; then no
reference and no relay may be left, the module is unloaded and loaded again, and the kernel must have said nothing. A process
that does not die hangs in the kernel, and its stack is printed.

A process with its threads is repeated with the seed that is printed before it starts. What the scheduler did is not repeated.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
import random
import re
import signal
import socket
import struct
import sys
import threading
import time
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

from . import random_agent
from .abuse_common import LONGEST_DEATH, bury, objects, reload
from .holders import holders
from .peer import eventually, references, stat
from .random_operations import OPERATIONS, Caller
from .random_pool import LIBC, Pool
from .random_states import STATES

SECONDS: Final = float(os.environ.get("STCP_RANDOM_SECONDS", "300"))
SEED: Final = int(os.environ.get("STCP_RANDOM_SEED", "0")) or int.from_bytes(os.urandom(4))
PROCESSES: Final = int(os.environ.get("STCP_RANDOM_PROCESSES", "4"))
ROUND: Final = 40.0
"""Seconds until everybody is killed."""
THREADS: Final = 2
FORK: Final = multiprocessing.get_context("fork")
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x4000_0000, 1
NAMES: Final = [call.__name__ for call in (*OPERATIONS, *STATES)]
NEEDED: Final = (
    "connect",
    "accept",
    "send",
    "receive",
    "frame",
    "splice",
    "relay",
    "give_back",
    "netlink",
    "pair",
    "both",
    "over",
)
"""What has to succeed now and then, or nothing is tested."""
ALARM: Final = re.compile(
    r"BUG|WARNING|Oops|KASAN|UBSAN|refcount_t|general protection|stack guard|INFO: |unable to handle|Call Trace"
)
LEAK: Final = 100
"""Objects of kmalloc that a run may leave behind."""


class Counts:
    """How often each call was made, and succeeded: in shared memory, a row for each thread of each process."""

    def __init__(self) -> None:
        self.rows = PROCESSES * THREADS
        self.cells = memoryview(mmap.mmap(-1, self.rows * len(NAMES) * 16)).cast("Q")

    def count(self, row: int, name: str, *, good: bool) -> None:
        at = (row * len(NAMES) + NAMES.index(name)) * 2
        self.cells[at] += 1
        self.cells[at + 1] += good

    def of(self, name: str) -> tuple[int, int]:
        """Calls, and how many of them succeeded."""
        at, step = NAMES.index(name) * 2, len(NAMES) * 2
        return sum(self.cells[at::step]), sum(self.cells[at + 1 :: step])


# -- a process -----------------------------------------------------------------------------------------------------------


def call_on(rng: random.Random, pool: Pool, counts: Counts, row: int) -> None:
    """One thread's calls, for ever."""
    c = Caller(rng, pool)
    while True:
        if rng.random() < 0.08 or not pool.entries:
            state = rng.choices(list(STATES), list(STATES.values()))[0]
            good = False
            with contextlib.suppress(OSError, AssertionError, IndexError):
                state(c)
                good = True
            counts.count(row, state.__name__, good=good)
        call = rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
        result = -1
        with contextlib.suppress(OSError, OverflowError, AssertionError):
            result = call(c)
        counts.count(row, call.__name__, good=result >= 0)


def own_namespace(seed: int) -> None:
    """A network namespace with an agent, which ends with this process."""
    if LIBC.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        loopback_up(sock.fileno())
    parent = os.getpid()
    if not os.fork():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # which died before it had asked for that
            os._exit(0)
        with contextlib.suppress(Exception):
            random_agent.serve(seed)
        os._exit(0)


def loopback_up(fd: int) -> None:
    """`ip link set lo up`."""
    request = bytearray(struct.pack("16sh", b"lo", 1) + bytes(30))
    if LIBC.ioctl(fd, 0x8914, (ctypes.c_char * len(request)).from_buffer(request)):  # SIOCSIFFLAGS, IFF_UP
        raise OSError(ctypes.get_errno(), "lo")


def wake(threads: list[threading.Thread]) -> None:
    """Interrupt the system calls of other threads. One that the kernel has killed is none any more."""
    for thread in threads:
        with contextlib.suppress(OSError):
            if thread.ident:
                signal.pthread_kill(thread.ident, signal.SIGUSR1)


def work(seed: int, counts: Counts, place: int) -> None:
    """A process until somebody kills it."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGIO, signal.SIGURG, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    threads: list[threading.Thread] = []
    # A call that blocks returns soon: a signal with a handler interrupts it, and ctypes does not repeat it.
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.signal(signal.SIGALRM, lambda *_: wake(threads))
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    rng = random.Random(seed)
    if rng.random() < 0.2:
        own_namespace(seed)
    pool = Pool(random.Random(seed))
    for thread in range(1, THREADS):
        arguments = random.Random(seed * 10 + thread), pool, counts, place * THREADS + thread
        threads.append(threading.Thread(target=call_on, args=arguments, daemon=True))
        threads[-1].start()
    call_on(rng, pool, counts, place * THREADS)


# -- the others ----------------------------------------------------------------------------------------------------------


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def check(self) -> None:
        """Raise for a line that says that something is wrong."""
        while True:
            try:
                line = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # records were overwritten before they were read
                continue
            # Races of the kernel itself are not ours; `inside` picks out those that name the module.
            if ALARM.search(line) and "BUG: KCSAN" not in line:
                raise AssertionError(f"the kernel says: {line.split(';', 1)[-1].strip()}")


class Crowd:
    """The processes of a round, and the agent."""

    def __init__(self, seed: int, counts: Counts) -> None:
        self.serial, self.counts = seed, counts
        self.processes = [self._start(place) for place in range(PROCESSES)]
        self.agent = self._agent()

    def _start(self, place: int) -> ForkProcess:
        self.serial += 1
        print(f"random: process {place} has seed {self.serial}", flush=True)
        process = FORK.Process(target=work, args=(self.serial, self.counts, place), daemon=False)
        process.start()
        return process

    def _agent(self) -> ForkProcess:
        self.serial += 1
        agent = FORK.Process(target=random_agent.serve, args=(self.serial,))
        agent.start()
        return agent

    def stir(self, rng: random.Random) -> None:
        """Start a process again for each one that has ended, and now and then kill one."""
        choice = rng.random()
        if choice < 0.1:
            place = rng.randrange(PROCESSES)
            bury(self.processes[place])
            self.processes[place] = self._start(place)
        elif choice < 0.15:
            self.agent.kill()
        for place, process in enumerate(self.processes):
            if process.exitcode is not None:
                bury(process)
                self.processes[place] = self._start(place)
        if self.agent.exitcode is not None:
            self.agent = self._agent()

    def end(self) -> None:
        for process in (*self.processes, self.agent):
            bury(process)


def one_round(seed: int, counts: Counts, log: KernelLog, end: float) -> None:
    rng = random.Random(seed)
    module = Path(os.environ["MODULE"]).read_bytes()
    crowd = Crowd(seed, counts)
    while time.monotonic() < end:
        time.sleep(0.5)
        log.check()
        crowd.stir(rng)
        if rng.random() < 0.1:
            reload(module)
    crowd.end()
    log.check()
    try:
        eventually(lambda: stat()["RelaysLive"] == 0, "a relay outlived its owner", LONGEST_DEATH)
        eventually(lambda: references() == 0, "something holds the module that nobody holds", LONGEST_DEATH)
    except AssertionError:
        print(holders(), flush=True)
        raise
    assert reload(module)
    log.check()


def main() -> None:
    counts, log = Counts(), KernelLog()
    print(f"random: seed {SEED}, {SECONDS:g} s, {PROCESSES} processes of {THREADS} threads", flush=True)
    end = time.monotonic() + SECONDS
    rounds, before, modprobe = 0, 0, Path("/proc/sys/kernel/modprobe")
    modprobe.write_text("\n")
    try:
        while time.monotonic() < end:
            one_round(SEED + rounds * 1000, counts, log, min(end, time.monotonic() + ROUND))
            rounds += 1
            # The first round fills caches.
            before = before or objects()
            print(f"random: round {rounds}: {sum(counts.of(name)[0] for name in NAMES)} calls, objects {objects()}", flush=True)
    finally:
        for name in NAMES:
            print(f"random: {name:16} {counts.of(name)[0]:9} calls, {counts.of(name)[1]:9} succeeded", flush=True)
    print(f"random: {stat()}", flush=True)
    # What is freed after a grace period of RCU goes later.
    eventually(lambda: objects() < before + LEAK, f"more than {LEAK} objects of kmalloc are left")
    missing = [name for name in NEEDED if not counts.of(name)[1]]
    assert not missing or SECONDS < ROUND, f"never succeeded: {missing}"


if __name__ == "__main__":
    try:
        main()
    except AssertionError as exc:
        sys.exit(f"random: FAILED: {exc}; repeat with STCP_RANDOM_SEED={SEED}")
