"""Relays in all states for the abuse (abuse.py): what one of its workers does."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from stcp_proxy.relay import kernel_abi as abi

from .abuse_common import EXPECTED, SECONDS, Counts
from .failing_memory import Faults
from .peer import DATA, FIN, KEY_DOWN, KEY_UP, RESET, Cipher, FramePeer, Relay, args, noise, stat, tcp_pair, ulp


class AbusedRelay(Relay):
    """A relay whose worker can let allocations fail. `finished` once both ends have said FIN."""

    faults: Faults
    finished = False


def work(seed: int, counts: Counts) -> None:
    """Relays in all states until the time is over or somebody kills us."""
    rng = random.Random(seed)
    faults = Faults()
    held: list[AbusedRelay] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        counts.tried("relay")
        with contextlib.suppress(*EXPECTED):
            held.append(fresh(rng, faults))
            counts.good("relay")
        for r in rng.sample(held, min(len(held), 3)):
            action = rng.choice(ACTIONS)
            if action in (give_back, hand_over_again):
                r = rng.choice([other for other in held if other.finished] or held)
            counts.tried(action.__name__)
            with contextlib.suppress(*EXPECTED), faults if action in OURS else contextlib.nullcontext():
                action(r, rng)
                counts.good(action.__name__)
        if rng.random() < 0.1:
            reuse(rng, faults, counts)
        while len(held) > rng.randrange(30):
            r = held.pop(rng.randrange(len(held)))
            for sock in rng.sample([r.app, r.peer, r.wire, r.plain], 4):
                with faults:
                    sock.close()


def fresh(rng: random.Random, faults: Faults) -> AbusedRelay:
    counter = rng.choice((0, (1 << 20) - 2, 1 << 20, (1 << 64) - 3))
    r = AbusedRelay(
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
    r.faults = faults
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


def junk(r: FramePeer, rng: random.Random) -> None:
    raw = bytearray(r.down.seal(rng.choice((DATA, FIN, RESET)), noise(rng.randrange(60))))
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    r.peer.send(raw)


def header(r: FramePeer, rng: random.Random) -> None:
    r.peer.send(struct.pack(">BBH", rng.randrange(4), rng.choice((0, 0, 1)), rng.choice((0, 15, 16, 18, 65_532, 65_535))))


def forbidden(r: FramePeer, rng: random.Random) -> None:
    """Authentic, and still not allowed: a type that is none, a FIN with text, a RESET without a code."""
    kind, size = rng.choice(((rng.randrange(256), rng.randrange(300)), (FIN, 1), (RESET, rng.choice((0, 1, 259, 5000)))))
    r.peer.send(r.down.seal(kind, noise(size)))


def fuzz(r: FramePeer, rng: random.Random) -> None:
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


def fin(r: FramePeer, rng: random.Random) -> None:
    r.send(FIN)


def peer_resets(r: FramePeer, rng: random.Random) -> None:
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


def finish(r: AbusedRelay, rng: random.Random) -> None:
    """Both FINs, in either order, perhaps with the next connection's bytes behind them."""
    for step in rng.sample((half, fin), 2):
        step(r, rng)
    r.finished = True
    if rng.random() < 0.5:
        r.peer.send(noise(rng.choice((1, 24, 5000))))


# -- a wire leg for many connections -------------------------------------------------------------------------------------


def give_back(r: Relay, rng: random.Random) -> None:
    r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")


def hand_over_again(r: AbusedRelay, rng: random.Random, *, careless: float = 0.2) -> None:
    """The next connection over a wire leg that was given back, now or before. Carelessly: not kept, or bytes are left in it."""
    app, plain = tcp_pair(r.wire.family)
    raw = args(plain.fileno(), flags=0 if rng.random() < careless else abi.RELAY_KEEP, linger_ms=rng.choice((1, 100)))
    try:
        with r.faults, contextlib.suppress(OSError):
            r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
        if rng.random() >= careless:
            read_now(r.wire)
        with r.faults:
            ulp(plain)
            r.wire.setsockopt(abi.SOL_STCP, abi.RELAY, raw)
    except BaseException:
        app.close()
        plain.close()
        raise
    for sock in (r.app, r.plain):
        sock.close()
    r.app, r.plain = app, plain
    r.finished = False
    r.up, r.down = Cipher(KEY_UP), Cipher(KEY_DOWN)
    r.app.settimeout(0.05)


def read_now(sock: socket.socket) -> None:
    """What is there. With a timeout Python would wait for it."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.recv(1 << 18)
    sock.settimeout(timeout)


def reuse(rng: random.Random, faults: Faults, counts: Counts) -> None:
    """A wire leg that carries connection after connection, until something is in its way."""
    with contextlib.suppress(*EXPECTED), contextlib.ExitStack() as stack:
        r = AbusedRelay(family=rng.choice((socket.AF_INET, socket.AF_INET6)), flags=abi.RELAY_KEEP, during=faults)
        stack.callback(r.close)
        r.faults = faults
        r.peer.settimeout(0.5)
        for generation in range(rng.randrange(2, 30)):
            counts.tried("kept")
            one_connection(r, rng)
            counts.good("kept")
            counts.tried("next")
            again(r, rng)
            counts.good("next")
            if generation == 9:
                counts.tried("tenth")
                counts.good("tenth")


def one_connection(r: AbusedRelay, rng: random.Random) -> None:
    """A little data and both FINs, until the leg is kept."""
    for _ in range(rng.randrange(3)):
        r.app.sendall(noise(rng.choice((1, 3000))))
        r.send(DATA, noise(rng.choice((0, 1, 3000))))
    read_now(r.peer)
    for step in rng.sample((half, fin), 2):
        step(r, rng)
    if rng.random() < 0.02:
        r.peer.send(noise(24))  # too early, perhaps
    if rng.random() < 0.3:
        with contextlib.suppress(OSError):
            give_back(r, rng)
    poll = select.poll()
    poll.register(r.wire, 0)
    poll.poll(1000)
    with r.faults, contextlib.suppress(OSError):  # ENOTCONN where it was given back a moment ago
        assert r.status().kept
    if rng.random() < 0.5:
        r.peer.send(noise(rng.choice((1, 24, 5000))))


def again(r: AbusedRelay, rng: random.Random) -> None:
    """Hand the leg over until there is memory for it."""
    for last in (False, False, False, True):
        try:
            hand_over_again(r, rng, careless=0.02)
        except OSError:
            if last:
                raise
        else:
            return


def close_wire(r: Relay, rng: random.Random) -> None:
    r.wire.close()


ACTIONS: Final[list[Callable[[AbusedRelay, random.Random], None]]] = [
    *[talk] * 3, fill, *[drain] * 2, junk, header, forbidden, fuzz, half, fin, peer_resets, abort, rst, shut, ask, misuse,
    *[finish] * 2, give_back, hand_over_again, close_wire,
]  # fmt: skip
OURS: Final = (abort, ask, misuse, shut, give_back, close_wire)  # one or few system calls that are the module's
NAMES: Final = ["relay", *(action.__name__ for action in ACTIONS), "kept", "next", "tenth"]
NEEDED: Final = ("relay", "talk", "finish", "kept", "next")
"""What has to succeed in half a minute. `next`: one more connection over a wire leg; `tenth`: ten in turn."""
