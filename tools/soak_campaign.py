"""Soak many kinds of tunnels side by side: `python tools/soak_campaign.py --minutes 120`.

Each piece is a pair of proxies with settings of its own before an echo server. Its load is steady: messages on connections that
stay, short connections, resets, and now and then a large transfer; every byte is compared. The load is paced, so many pieces
share two cores: an hour with sixteen pieces is sixteen hours of soak. Memory (PSS of all processes of a proxy) and descriptors
are measured every ten seconds. They have to stay flat: the last fifth of the time is compared with the second one.

All processes are children of this tool and end with it. Nothing leaves loopback. The last lines are one for each piece. The exit
status is 1 when bytes were wrong, when a connection failed that nobody had cut, or when memory or descriptors grew.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from stcp_proxy.admin.client import AdminError, ask_well
from stcp_proxy.config import AdminPlan
from stcp_proxy.keys import PrivateKey, format_private_key, format_psk, generate_psk, write_secret_file
from stcp_proxy.lab.bench.pair import free_port
from stcp_proxy.net.address import UnixAddress

SIDES: Final = ("listen", "connect")
PATIENCE: Final = 120.0
"""Seconds for a proxy to start, and for one answer."""
SAMPLE: Final = 10.0
"""Seconds between two measurements."""
LARGE: Final = 4 << 20
LARGE_EVERY: Final = 30.0
"""Seconds between two large transfers of a piece."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The settings of a piece, as parts of YAML. SIDE and TARGET are replaced.

    Attributes:
        both, listen, connect: settings of both tunnels, and of one, each with a comma in front.
        file: lines for both files.
        every: seconds between two times that `act` is done; 0: never.
        act: what is done to both proxies: "reload", "touch", "scrape" or "replace".
        cuts: whether a setting ends connections that are at work.
        compiled: whether the part in C relays.
    """

    both: str = ""
    listen: str = ""
    connect: str = ""
    file: str = ""
    every: float = 0.0
    act: str = ""
    cuts: bool = False
    compiled: bool = True


KINDS: Final = {
    "defaults": Kind(),
    "keep-off": Kind(", keep: off"),
    "ready-legs": Kind(connect=", keep: {ready: 4, idle: 5s, max_age: 30s}"),
    "classic": Kind(", suite: classic"),
    "psk": Kind(", psk: ../shared.psk"),
    "without-c": Kind(compiled=False),
    "without-c-keep-off": Kind(", keep: off", compiled=False),
    "workers": Kind(file="workers: 2\n"),
    "service": Kind(listen=", services: {web: TARGET}", connect=", service: web"),
    "checked": Kind(connect=", health: {interval: 1s}, ready: target"),
    "limits": Kind(", idle_timeout: 20s, max_connections: 200", listen=", rate_per_peer: 1000"),
    "lifetime": Kind(", max_lifetime: 45s", cuts=True),
    "reloaded": Kind(every=20.0, act="reload"),
    "watched": Kind(file="watch: 1s\n", every=20.0, act="touch"),
    "scraped": Kind(file="admin: unix:SIDE.admin\n", every=1.0, act="scrape"),
    "replaced": Kind(file="takeover: unix:SIDE.takeover\ntakeover_drain: 10s\n", every=120.0, act="replace", cuts=True),
}


class Piece:
    """One pair with its load.

    Args:
        name: an entry of `KINDS`.
        folder: an empty folder for its keys, files and logs.
        target: the port of the echo server.
    """

    def __init__(self, name: str, folder: Path, target: int) -> None:
        self.name, self.kind, self.folder = name, KINDS[name], folder
        wire, self.port = free_port(), free_port()
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.points: list[dict[str, tuple[int, int]]] = []
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        keys = {side: PrivateKey.generate() for side in SIDES}
        where = {
            "listen": f"bind: 127.0.0.1:{wire}, to: 127.0.0.1:{target}, allow: other",
            "connect": f"bind: 127.0.0.1:{self.port}, to: 127.0.0.1:{wire}, peer: other",
        }
        for side, other in (SIDES, SIDES[::-1]):
            (folder / side).mkdir()
            write_secret_file(str(folder / side / "own.key"), format_private_key(keys[side]))
            extra = self.kind.both + (self.kind.listen if side == "listen" else self.kind.connect)
            text = (
                f"identity: own.key\npeers: {{other: {keys[other].public}}}\nengine: python\nlog: {{level: warning}}\n"
                f"{self.kind.file}tunnels:\n  tunnel: {{mode: {side}, {where[side]}{extra}}}\n"
            )
            self._file(side).write_text(text.replace("SIDE", str(folder / side)).replace("TARGET", f"127.0.0.1:{target}"))
        write_secret_file(str(folder / "shared.psk"), format_psk(generate_psk()))

    def _file(self, side: str) -> Path:
        return self.folder / side / "tunnels.yaml"

    def _run(self, side: str, *more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "STCP_COMPILED": str(int(self.kind.compiled))}
        with (self.folder / side / "log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "stcp_proxy", "run", *more, str(self._file(side))]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    async def start(self) -> None:
        """Start both proxies and wait until a byte comes back."""
        for side in SIDES:
            self._children[side] = self._run(side)
        with trio.move_on_after(PATIENCE):
            while True:
                answer = b""
                try:
                    answer = await _exchange(self.port, b"hello")
                except* (OSError, trio.BrokenResourceError):
                    await trio.sleep(0.1)
                if answer:
                    return
        sys.exit(f"{self.name} does not start:\n{self.log()}")

    def log(self) -> str:
        """The last lines of both logs."""
        return "\n".join((self.folder / side / "log").read_text()[-1500:] for side in SIDES)

    def stop(self) -> None:
        """End both proxies."""
        for child in self._children.values():
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    # -- load

    async def load(self) -> None:
        """All loads of this piece, until it is cancelled."""
        async with trio.open_nursery() as nursery:
            for seed, work, pause in (
                (1, self._talk, 0.2),
                (2, self._short, 0.4),
                (3, self._reset, 2.0),
                (4, self._large, LARGE_EVERY),
            ):
                nursery.start_soon(self._again, work, random.Random(f"{self.name} {seed}"), pause)
            nursery.start_soon(self._sample)
            if self.kind.act:
                nursery.start_soon(self._act)

    async def _again(self, work: Callable[[random.Random], Awaitable[None]], rng: random.Random, pause: float) -> None:
        while True:
            await trio.sleep(rng.uniform(0.5, 1.5) * pause)
            try:
                await work(rng)
            except* trio.TooSlowError:
                self.wrong.append(f"no answer within {PATIENCE:g} s")
            except* (OSError, trio.BrokenResourceError) as failures:
                self.did["cut"] += 1
                if not self.kind.cuts:
                    self.wrong.append(f"a connection failed: {failures.exceptions[0]!r}")

    async def _talk(self, rng: random.Random) -> None:
        """Messages on one connection, for up to a minute."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            for _ in range(rng.randrange(10, 300)):
                words = rng.randbytes(rng.choice((1, 100, 1400, 16384)))
                with trio.fail_after(PATIENCE):
                    await stream.send_all(words)
                    self._compare(words, await _read(stream, len(words)))
                self.did["messages"] += 1
                await trio.sleep(0.2)

    async def _short(self, rng: random.Random) -> None:
        await self._echoed(rng.randbytes(rng.choice((1, 100, 5000, 70_000))))
        self.did["connections"] += 1

    async def _reset(self, rng: random.Random) -> None:
        """A connection that its client resets in the middle."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(rng.randbytes(rng.randrange(1, 300_000)))
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        await stream.aclose()
        self.did["resets"] += 1

    async def _large(self, rng: random.Random) -> None:
        await self._echoed(rng.randbytes(LARGE))
        self.did["large"] += 1

    async def _echoed(self, words: bytes) -> None:
        with trio.fail_after(PATIENCE):
            self._compare(words, await _exchange(self.port, words))

    def _compare(self, sent: bytes, back: bytes) -> None:
        if sent != back:
            self.wrong.append(f"{len(sent)} bytes sent, {len(back)} came back, and others")

    # -- what happens to the proxies

    async def _act(self) -> None:
        while True:
            await trio.sleep(self.kind.every)
            for side in SIDES:
                await getattr(self, f"_{self.kind.act}")(side)
            self.did[self.kind.act] += 1

    async def _reload(self, side: str) -> None:
        self._children[side].send_signal(signal.SIGHUP)

    async def _touch(self, side: str) -> None:
        """Write the file anew with another comment."""
        text = self._file(side).read_text().partition("#")[0]
        new = self._file(side).with_suffix(".new")
        new.write_text(f"{text}# {time.monotonic()}\n")
        new.rename(self._file(side))

    async def _scrape(self, side: str) -> None:
        plan = AdminPlan(UnixAddress(f"{self.folder / side}.admin"))
        for path in ("/metrics", "/status"):
            try:
                await trio.to_thread.run_sync(partial(ask_well, plan, path))
            except AdminError as exc:
                self.wrong.append(f"{path}: {exc}")

    async def _replace(self, side: str) -> None:
        old, self._children[side] = self._children[side], self._run(side, "--replace")
        try:
            await trio.to_thread.run_sync(partial(old.wait, PATIENCE))
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{side}: the old process has not ended")
            old.kill()

    # -- what is measured

    async def _sample(self) -> None:
        while True:
            await trio.sleep(SAMPLE)
            for side, child in self._children.items():
                if child.poll() is not None:
                    self.wrong.append(f"{side} ended with status {child.returncode}")
            with contextlib.suppress(OSError):  # a process that is just ending
                self.points.append({side: _holds(child.pid) for side, child in self._children.items()})

    def verdict(self) -> str:
        """One line, and in `wrong` what was not flat."""
        parts = []
        for side in SIDES:
            (early, fds), (late, more) = (_median(_part(self.points, at), side) for at in (0.2, 0.8))
            parts.append(f"{side} {early / 2**20:.1f} to {late / 2**20:.1f} MiB, {fds:.0f} to {more:.0f} descriptors")
            if late > early * 1.05 + (1 << 20):
                self.wrong.append(f"{side}: memory grew")
            if more > fds + 10:
                self.wrong.append(f"{side}: descriptors grew")
        did = ", ".join(f"{count} {what}" for what, count in sorted(self.did.items()))
        return f"{self.name}: {'; '.join(parts)}; {did}"


def _part(points: Sequence[dict[str, tuple[int, int]]], begin: float) -> Sequence[dict[str, tuple[int, int]]]:
    """The fifth of the points that begins there."""
    return points[int(begin * len(points)) : int((begin + 0.2) * len(points)) + 1]


def _median(points: Sequence[dict[str, tuple[int, int]]], side: str) -> tuple[float, float]:
    return statistics.median(point[side][0] for point in points), statistics.median(point[side][1] for point in points)


def _holds(pid: int) -> tuple[int, int]:
    """PSS in bytes and descriptors of a process and its descendants."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) << 10
    fds = len(os.listdir(f"/proc/{pid}/fd"))
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            more, other = _holds(int(child))
            pss, fds = pss + more, fds + other
    return pss, fds


async def _read(stream: trio.SocketStream, size: int) -> bytes:
    """Up to `size` bytes; fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size and (part := await stream.receive_some(size - len(data))):
        data += part
    return bytes(data)


async def _exchange(port: int, words: bytes) -> bytes:
    """Send, end the direction, and read to the end."""

    async def send() -> None:
        await stream.send_all(words)
        await stream.send_eof()

    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        return await _read(stream, len(words) + 1)


async def _echo(stream: trio.SocketStream) -> None:
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        async with stream:
            while data := await stream.receive_some(1 << 16):
                await stream.send_all(data)
            await stream.send_eof()


async def campaign(names: Sequence[str], minutes: float) -> int:
    """Run the pieces side by side. Returns the exit status."""
    async with trio.open_nursery() as nursery:
        listener = (await nursery.start(partial(trio.serve_tcp, _echo, 0, host="127.0.0.1")))[0]
        target = listener.socket.getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            pieces = []
            try:
                for name in names:
                    (Path(folder) / name).mkdir()
                    pieces.append(Piece(name, Path(folder) / name, target))
                    await pieces[-1].start()
                print(f"{len(pieces)} pieces started", flush=True)
                with trio.move_on_after(60 * minutes):
                    async with trio.open_nursery() as loads:
                        for piece in pieces:
                            loads.start_soon(piece.load)
                for piece in pieces:
                    print(piece.verdict())
                    for what, times in Counter(piece.wrong).most_common(10):
                        print(f"WRONG: {piece.name}: {what} ({times} times)")
                    print(piece.log() if piece.wrong else "", end="")
            finally:
                for piece in pieces:
                    piece.stop()
        nursery.cancel_scope.cancel()
    print(f"{len(pieces) * minutes / 60:.1f} hours of soak")
    return int(any(piece.wrong for piece in pieces))


def main() -> int:
    """Run the pieces that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("piece", nargs="*", help=f"{', '.join(KINDS)} [default: all]")
    parser.add_argument("--minutes", type=float, default=60.0, help="[default: 60]")
    options = parser.parse_args()
    if unknown := set(options.piece) - KINDS.keys():
        parser.error(f"there is no piece {unknown.pop()!r}")
    return trio.run(campaign, options.piece or list(KINDS), options.minutes)


if __name__ == "__main__":
    sys.exit(main())
