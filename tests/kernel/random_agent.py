"""The agent of a random caller: most handshakes are good; others it refuses, forgets, or spoils, and sometimes it dies."""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import struct
from contextlib import suppress
from typing import Final

from .netlink_agent import RESPONDER, Link, Taken, done, take
from .random_operations import LEVELS, PROTOCOL, ULPS

REFUSALS: Final = (errno.EACCES, errno.EKEYREJECTED, errno.ENOKEY, errno.ECONNREFUSED, errno.ETIMEDOUT)


def serve(seed: int) -> None:
    """Answer handshakes until somebody kills us, or we feel like dying."""
    rng = random.Random(seed)
    link = Link()
    while True:
        with suppress(OSError):
            link.register()
            break
        select.select([], [], [], 0.1)
    forgotten: list[int] = []
    while rng.random() > 0.002:
        with suppress(OSError):
            while (taken := take(link)) is not None:
                _answer(rng, link, taken, forgotten)
        while len(forgotten) > rng.randrange(6):
            with suppress(OSError):
                os.close(forgotten.pop(rng.randrange(len(forgotten))))
        if select.select([link.sock], [], [], 0.1)[0]:
            link.sock.recv(1 << 17)


def _answer(rng: random.Random, link: Link, taken: Taken, forgotten: list[int]) -> None:
    forgotten.append(taken.fd)
    choice = rng.random()
    if choice < 0.06:
        return
    if choice < 0.12:
        done(link, taken.number, rng.choice(REFUSALS))
        return
    if choice < 0.25:
        with suppress(OSError):
            spoil(rng, taken.fd)
    counter = rng.choice((0, 0, 0, 1 << 20, (1 << 64) - 2))
    done(
        link,
        taken.number,
        swapped=taken.role == RESPONDER,
        counters=(0, counter),
        wire=rng.choice((b"", b"", b"", os.urandom(30))),
    )
    if choice > 0.9:
        with suppress(OSError):
            spoil(rng, taken.fd)


def spoil(rng: random.Random, fd: int) -> None:
    """Do to the TCP connection what an agent should not."""
    # With a family, for to ask for it is refused after DONE.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(fd))
    sock.setblocking(False)
    level = rng.choice(list(LEVELS))
    call = rng.choice((
        lambda: sock.send(os.urandom(rng.choice((1, 5000)))),
        lambda: sock.recv(5000),
        lambda: sock.shutdown(rng.randrange(3)),
        lambda: sock.listen(),
        lambda: sock.bind(("127.0.0.1", 0)),
        lambda: sock.connect_ex(("127.0.0.1", 9)),
        lambda: sock.setsockopt(socket.SOL_TCP, 31, rng.choice(ULPS)),
        lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, rng.choice((0, 1)))),
        lambda: sock.setsockopt(level, rng.randrange(LEVELS[level]), os.urandom(4)),
        lambda: sock.getsockopt(level, rng.randrange(LEVELS[level]), 300),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, PROTOCOL).connect_ex(("127.0.0.1", sock.getpeername()[1])),
    ))  # fmt: skip
    with sock:
        call()
