"""The agent of the abuse (abuse.py): most handshakes are good, others it refuses, forgets or spoils, and it dies at any point.

It gives keys that the tests know. Both ends of a connection on this host get the same counters, by the ports of the connection.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import signal
import socket
import struct
from typing import Final

from .abuse_common import EXPECTED, Counts
from .failing_memory import Faults
from .netlink_agent import (
    ACCEPT,
    DONE,
    ERROR,
    FD,
    ID,
    RESPONDER,
    Link,
    Taken,
    attribute,
    attributes,
    done,
    take,
)
from .peer import INTERVAL
from .random_agent import REFUSALS, spoil

COUNTERS: Final = (0, 0, INTERVAL - 2, (1 << 64) - 20)
"""The last is at its end soon."""
DIES: Final = {"taken": 20, "unregistered": 3, "done": 20, "registered": 3, "waiting": 100}
"""Where agents kill themselves, each at one place, and how often they pass it at most before they do."""
NAMES: Final = [
    *(f"agent dies {place}" for place in DIES),
    *("take", "good", "refuse", "forget", "wrong keys", "twice", "strange", "spoil"),
]
NEEDED: Final = ("agent dies taken", "agent dies done", "take", "good", "refuse", "wrong keys", "spoil")


def counter_of(sock: socket.socket) -> int:
    """The first counter of both directions of a connection. Either of its ends may ask."""
    return COUNTERS[(sock.getsockname()[1] + sock.getpeername()[1]) % len(COUNTERS)]


LONGEST: Final = 3000
"""Bytes of a message. Netlink copies a longer one with vmalloc(); if that fails, the kernel prints the state of all memory."""


class Lost(Exception):
    """An answer is lost, and the next one would be taken for it."""


class AbusedLink(Link):
    """A netlink socket whose answers may find no memory."""

    def ask(self, command: int, body: bytes = b"") -> dict[int, bytes]:
        during = self.during
        if len(body) > LONGEST:
            self.during = contextlib.nullcontext()
        try:
            return super().ask(command, body)
        except (TimeoutError, MemoryError) as exc:
            raise Lost from exc
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                raise Lost from exc
            raise
        finally:
            self.during = during


class AbusiveAgent:
    """An agent until it dies, at its place of DIES."""

    def __init__(self, seed: int, counts: Counts) -> None:
        self.rng, self.counts = random.Random(seed), counts
        # In turns, whatever the seeds: on a slow machine few agents live, and each place has to be seen.
        place = min(DIES, key=lambda name: counts.of(f"agent dies {name}")[1])
        self.dies, self.left = place, self.rng.randint(1, DIES[place])
        self.faults = Faults()
        self.kept: list[int] = []  # descriptors of handshakes that are over, or forgotten
        self.known: list[int] = []  # their numbers

    def die(self, place: str) -> None:
        """Pass here, and die if this is its place and it has passed often enough."""
        name = f"agent dies {place}"
        self.counts.tried(name)
        self.left -= place == self.dies
        if not self.left:
            self.counts.good(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def serve(self) -> None:
        """Again and again with a new socket: the module goes and comes back, and an answer may get lost."""
        while True:
            with contextlib.suppress(*EXPECTED, Lost):
                link = AbusedLink()
                self.die("unregistered")
                link.sock.settimeout(1)
                try:
                    self.answer_all(link)
                finally:
                    drop(link)
            select.select([], [], [], 0.05)

    def answer_all(self, link: Link) -> None:
        while True:
            link.register()  # fails where the module is another one by now
            self.die("registered")
            link.during = self.faults
            while (taken := self.take(link)) is not None:
                self.kept.append(taken.fd)
                self.known = [*self.known[-9:], taken.number]
                self.die("taken")
                with contextlib.suppress(*EXPECTED):
                    self.answer(link, taken)
                self.die("done")
                self.forget(6)
            link.during = contextlib.nullcontext()
            self.forget(2)
            self.die("waiting")
            if select.select([link.sock], [], [], 0.05)[0]:
                link.sock.recv(1 << 17)

    def take(self, link: Link) -> Taken | None:
        """The next handshake. Without memory the answer is an error."""
        while True:
            self.counts.tried("take")
            try:
                taken = take(link)
            except OSError as exc:
                if exc.errno == errno.ENOMEM:
                    continue
                raise
            if taken:
                self.counts.good("take")
            return taken

    def forget(self, most: int) -> None:
        while len(self.kept) > self.rng.randrange(most):
            os.close(self.kept.pop(self.rng.randrange(len(self.kept))))

    def answer(self, link: Link, taken: Taken) -> None:
        rng = self.rng
        choice = rng.random()
        if choice < 0.7:
            self.good(link, taken)
            return
        name, way = rng.choice((
            ("refuse", self.refuse),
            ("forget", lambda _link, _taken: None),
            ("wrong keys", self.wrong_keys),
            ("twice", self.twice),
            ("strange", self.strange),
            ("spoil", self.spoil),
        ))  # fmt: skip
        self.counts.tried(name)
        way(link, taken)
        self.counts.good(name)

    def good(self, link: Link, taken: Taken) -> None:
        self.counts.tried("good")
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(taken.fd)) as sock:
            counter = counter_of(sock)
        if self.rng.random() < 0.1:
            os.close(self.kept.pop())
        done(link, taken.number, swapped=taken.role == RESPONDER, counters=(counter, counter))
        self.counts.good("good")

    def refuse(self, link: Link, taken: Taken) -> None:
        done(link, taken.number, self.rng.choice(REFUSALS))

    def wrong_keys(self, link: Link, taken: Taken) -> None:
        """Keys, counters or bytes of the wire that do not fit."""
        rng = self.rng
        counters = rng.choice(((0, 0), (1, 0), (INTERVAL, INTERVAL - 1), ((1 << 64) - 2, 0)))
        wire = rng.choice((b"", os.urandom(30), bytes(4), os.urandom(2000), os.urandom(20_000)))
        done(link, taken.number, swapped=rng.random() < 0.5, counters=counters, wire=wire)

    def twice(self, link: Link, taken: Taken) -> None:
        """DONE once more, which is nobody's any more."""
        self.good(link, taken)
        with contextlib.suppress(OSError):
            done(link, taken.number, self.rng.choice((0, errno.EACCES)))
            raise RuntimeError("a handshake was over twice")

    def strange(self, link: Link, taken: Taken) -> None:
        """Unknown numbers, those of others, errors that nobody may tell, attributes that are missing or do not belong here."""
        rng = self.rng
        number = rng.choice((0, taken.number + 1, rng.getrandbits(64), *self.known))
        parts = [attribute(ID, number, "=Q"), attribute(ERROR, rng.choice((0, -1, 1, -errno.EIO, -4000)), "=i")]
        parts.append(attribute(rng.randrange(20), os.urandom(rng.choice((0, 4, 8, 32)))))
        parts.append(attribute(FD, rng.choice((-1, 0, taken.fd)), "=i"))
        with contextlib.suppress(OSError):
            found = link.ask(rng.choice((DONE, DONE, ACCEPT)), b"".join(rng.sample(parts, rng.randrange(1, 5))))
            if FD in found:
                self.kept.append(struct.unpack("=i", found[FD])[0])
        if rng.random() < 0.5:
            self.good(link, taken)

    def spoil(self, link: Link, taken: Taken) -> None:
        """Do to the connection what an agent should not, before DONE and after."""
        for when in ("before", "after"):
            if self.rng.random() < 0.7:
                with contextlib.suppress(OSError), self.faults:
                    spoil(self.rng, taken.fd)
            if when == "before":
                self.good(link, taken)


def drop(link: Link) -> None:
    """Close a socket, and the descriptors in answers that nobody has read."""
    link.sock.setblocking(False)
    for _ in range(100):
        try:
            raw = link.sock.recv(1 << 17)
        except BlockingIOError:
            break
        except OSError:
            continue
        if struct.unpack_from("=IH", raw)[1] > 2:
            found = attributes(raw[20:])
            if FD in found:
                os.close(struct.unpack("=i", found[FD])[0])
    link.close()


def serve(seed: int, counts: Counts) -> None:
    """Answer handshakes until somebody kills us."""
    AbusiveAgent(seed, counts).serve()
