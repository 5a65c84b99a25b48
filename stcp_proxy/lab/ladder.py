"""The ladder: each rung does the same work with one layer more. The rung with the largest step is the bottleneck.

1. cipher: AES-256-GCM alone, called as the engine calls it
2. frames: Sealer and Opener in memory: headers, nonces, associated data
3. engine: two engines in processes of their own over socketpairs: system calls, epoll, buffers; no handshake, no TCP, no Trio
4. pair: the complete product

A result is the CPU seconds of both sides of the tunnel together, for a unit of work. The unit is 100,000 round trips or a GB of
bulk. A round trip seals two messages and opens two; bulk seals and opens each byte once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stcp_proxy.lab import loadgen
from stcp_proxy.lab.bench import measure, peers, rows
from stcp_proxy.lab.bench.cells import Table, number
from stcp_proxy.lab.bench.measure import Progress, Sample
from stcp_proxy.lab.bench.pair import Pair
from stcp_proxy.lab.bench.rows import Kind, Row
from stcp_proxy.protocol.frames import Opener, Sealer, sealed_size
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FRAME_OVERHEAD, HEADER_LEN, MAX_PLAINTEXT, NONCE_LEN, TAG_LEN

ROWS: Final = rows.choose(["rt-256x50", "rt-4kx20", "rt-16kx10", "rt-64kx5", "bulk-1"])
LEAST: Final = 0.1
"""Seconds of the shortest timed run in memory."""
STEPS: Final = 1 + 2 * len(ROWS)


@dataclass(frozen=True, slots=True)
class Rung:
    """The results of one row: CPU seconds for its unit of work on each rung, and the rates of the last two."""

    row: Row
    cipher: float
    frames: float
    engine: float
    pair: float
    engine_rate: float
    pair_rate: float

    def as_dict(self) -> dict[str, float | str]:
        """The results as JSON, by the row's name."""
        figures = ("cipher", "frames", "engine", "pair", "engine_rate", "pair_rate")
        return {"row": self.row.name} | {name: getattr(self, name) for name in figures}


def climb(*, seconds: float, progress: Progress) -> list[Rung]:
    """Measure all rungs.

    Args:
        seconds: running time of one sample.
        progress: called before each sample.

    Raises:
        LabError: the load generator or the product does not run.
    """
    progress("cipher and frames in memory")
    cipher = {row.name: _per_unit(row, _cipher_cost) for row in ROWS}
    frames = {row.name: _per_unit(row, _frame_cost) for row in ROWS}
    engine = {}
    for row in ROWS:
        progress(f"engine over socketpairs: {row.title}")
        engine[row.name] = _engine_sample(row, seconds)
    whole = {}
    with loadgen.echo_server() as target, measure.start_pair(peers.OURS[0], target) as pair:
        for row in ROWS:
            progress(f"whole pair: {row.title}")
            whole[row.name] = measure.measure(row, pair, 0, seconds)
    return [
        Rung(
            row,
            cipher[row.name],
            frames[row.name],
            _cost(row, engine[row.name]),
            _cost(row, whole[row.name]),
            engine[row.name].load.rate,
            whole[row.name].load.rate,
        )
        for row in ROWS
    ]


def _cost(row: Row, sample: Sample) -> float:
    return sample.cpu / max(1, sample.load.total) * (1e9 if row.kind is Kind.BULK else 1e5)


# -- in memory -------------------------------------------------------------------------------------------------------------


def _per_unit(row: Row, cost: Callable[[int], float]) -> float:
    """CPU seconds for the row's unit of work, from the cost of sealing and opening one message of a size."""
    if row.kind is Kind.BULK:
        return cost(MAX_PLAINTEXT) * 1e9 / MAX_PLAINTEXT
    return 2 * cost(row.size) * 1e5


def _clocked(once: Callable[[], object]) -> float:
    """Seconds of one call: the best of three runs of at least `LEAST` seconds each."""
    count, best = 16, float("inf")
    for _ in range(3):
        while True:
            start = time.perf_counter()
            for _ in range(count):
                once()
            took = time.perf_counter() - start
            if took >= LEAST:
                break
            count *= 2
        best = min(best, took / count)
    return best


def _cipher_cost(size: int) -> float:
    """Seconds to encrypt and decrypt `size` bytes, in pieces of a frame's size."""
    aead, nonce, header = AESGCM(bytes(range(32))), bytes(NONCE_LEN), bytes(HEADER_LEN)
    plain, out = memoryview(bytearray(MAX_PLAINTEXT)), memoryview(bytearray(MAX_PLAINTEXT + TAG_LEN))
    total = 0.0
    for piece in _pieces(size):
        source, sealed = plain[:piece], out[: piece + TAG_LEN]
        total += _clocked(functools.partial(aead.encrypt_into, nonce, source, header, sealed))
        total += _clocked(functools.partial(aead.decrypt_into, nonce, sealed, header, source))
    return total


def _frame_cost(size: int) -> float:
    """Seconds to seal a message into frames and to open them, by `stcp_proxy.protocol`."""
    key = Secret(bytes(range(32)))
    sealer, opener = Sealer(key), Opener(key)
    plain, out = memoryview(bytearray(size)), memoryview(bytearray(sealed_size(size) + FRAME_OVERHEAD))
    opened = memoryview(bytearray(MAX_PLAINTEXT))

    def once() -> None:
        end, at = sealer.seal_data(plain, out), 0
        while at < end:
            frame = opener.open_into(out[at:end], opened)
            assert frame is not None
            at += frame[0]

    return _clocked(once)


def _pieces(size: int) -> Iterator[int]:
    while size > 0:
        yield min(size, MAX_PLAINTEXT)
        size -= MAX_PLAINTEXT


# -- engines over socketpairs ------------------------------------------------------------------------------------------------


def _engine_sample(row: Row, seconds: float) -> Sample:
    with contextlib.ExitStack() as stack:
        plain = _socketpairs(stack, row.connections)
        wire = _socketpairs(stack, row.connections)
        far = _socketpairs(stack, row.connections)
        commands = {
            "connect": _engine("connect", [b for _, b in plain], [a for a, _ in wire]),
            "listen": _engine("listen", [a for a, _ in far], [b for _, b in wire]),
        }
        server = [str(loadgen.binary()), "serve", "fds:" + ",".join(str(b.fileno()) for _, b in far)]
        _start(stack, server, [b for _, b in far])
        sides = {side: _start(stack, argv, sockets) for side, (argv, sockets) in commands.items()}
        pair = Pair("engine", 0, sides)
        for sock in (b for _, b in plain):
            sock.close()
        before = pair.cpu_seconds()
        where = [a.fileno() for a, _ in plain]
        if row.kind is Kind.BULK:
            load = loadgen.bulk(where, connections=row.connections, seconds=seconds)
        else:
            load = loadgen.round_trips(where, connections=row.connections, size=row.size, seconds=seconds)
        return Sample(row.name, "engine", 0, load, pair.cpu_seconds() - before)


def _socketpairs(stack: contextlib.ExitStack, count: int) -> list[tuple[socket.socket, socket.socket]]:
    made = [socket.socketpair() for _ in range(count)]
    for pair in made:
        for sock in pair:
            stack.enter_context(sock)
    return made


def _engine(side: str, plain: Sequence[socket.socket], wire: Sequence[socket.socket]) -> tuple[list[str], list[socket.socket]]:
    numbers = (",".join(str(sock.fileno()) for sock in sockets) for sockets in (plain, wire))
    return [sys.executable, "-m", "stcp_proxy.lab.engine_process", side, *numbers], [*plain, *wire]


def _start(stack: contextlib.ExitStack, argv: Sequence[str], sockets: Sequence[socket.socket]) -> int:
    """Start a child with these sockets. When the child is ready, it writes one line or opens its standard output."""
    child = subprocess.Popen(argv, pass_fds=[sock.fileno() for sock in sockets], stdout=subprocess.PIPE)
    stack.callback(child.wait)
    stack.callback(child.kill)
    assert child.stdout is not None
    stack.callback(child.stdout.close)
    if argv[0] == sys.executable:
        os.read(child.stdout.fileno(), 1)
    return child.pid


def table(rungs: Sequence[Rung]) -> Table:
    """The ladder as a table."""
    head = ["", "unit of CPU time", "cipher", "frames", "engine", "pair", "engine, rate", "pair, rate", ""]
    lines = []
    for rung in rungs:
        bulk = rung.row.kind is Kind.BULK
        unit, scale = ("s per GB", 1e-6) if bulk else ("s per 100,000", 1.0)
        costs = (rung.cipher, rung.frames, rung.engine, rung.pair)
        rates = (rung.engine_rate * scale, rung.pair_rate * scale)
        lines.append([rung.row.title, unit, *map(number, costs), *map(number, rates), rung.row.unit])
    return Table("The ladder: CPU time of both sides, one layer more to the right", head, lines)
