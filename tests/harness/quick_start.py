"""A pair of tunnels in this process, which runs a case with and without tasks and compares what was seen.

Both tunnels share one engine in Trio's loop. With `keep`, connection 1 of each case makes the wire leg that the later ones find
at rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
import trio

from stcp_proxy.config import KeyAuth, Mode, TunnelPlan
from stcp_proxy.config.plan import KeepPlan
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.listen import close_listeners
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay import kernel, trio_loop
from stcp_proxy.relay.engine import Handover
from stcp_proxy.relay.kernel import KernelEngine
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.session import connect as session_connect
from stcp_proxy.session import peer_leg
from stcp_proxy.tunnel import quick_start
from stcp_proxy.tunnel.connections import LiveConnections
from stcp_proxy.tunnel.tunnel import Tunnel

ENDS = {Mode.LISTEN: PrivateKey.generate(), Mode.CONNECT: PrivateKey.generate()}
NOWHERE = TcpAddress("127.0.0.1", 1)
PORT = re.compile(r"127\.0\.0\.1( 127\.0\.0\.1)?[: ]\d+( \d+)?")


@dataclass
class Seen:
    """What one run of a case showed.

    Attributes:
        answers: what each client got, or how its connection ended.
        said: what the target got, by connection.
        lines: log lines, without what differs from run to run.
        counts: counters of both tunnels, likewise.
        tasks: sessions that had a task, by tunnel.
    """

    answers: list[bytes | str] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    lines: list[dict[str, str]] = field(default_factory=list)
    counts: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, int] = field(default_factory=lambda: {"listen": 0, "connect": 0})


async def until(reached: Callable[[], object]) -> None:
    """Wait for something that no event announces."""
    with trio.fail_after(20):
        while not reached():  # noqa: ASYNC110
            await trio.sleep(0.001)


async def look_around() -> None:
    """Let the engine serve every event that is there."""
    for _ in range(20):
        await trio.lowlevel.checkpoint()


class Target:
    """An echo server of this process that notes what each connection says."""

    def __init__(self, greeting: bytes) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.greeting = greeting
        self.said: list[bytes] = []

    @property
    def address(self) -> TcpAddress:
        return TcpAddress("127.0.0.1", self.sock.getsockname()[1])

    async def serve(self) -> None:
        async def echo(stream: trio.SocketStream) -> None:
            number = len(self.said)
            self.said.append(b"")
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(self.greeting)
                async for data in stream:
                    self.said[number] += data
                    await stream.send_all(data)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.sock))
            await trio.serve_listeners(echo, [listener], handler_nursery=nursery)


class Rig:
    """Both tunnels of a pair."""

    def __init__(self, listen: Tunnel, connect: Tunnel, target: Target, patch: pytest.MonkeyPatch) -> None:
        self.listen, self.connect, self.target, self.patch = listen, connect, target, patch
        self.seen = Seen()

    def dial(self, words: bytes = b"") -> socket.socket:
        """A client that has connected and spoken before the proxy accepts it."""
        client = socket.create_connection(self.connect.listeners[0].getsockname())
        client.sendall(words)
        client.setblocking(False)
        return client

    async def finish(self, client: socket.socket) -> None:
        """End the client's direction, and note what it gets."""
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        got = b""
        with trio.socket.from_stdlib_socket(client) as receiver, trio.fail_after(20):
            try:
                while data := await receiver.recv(65536):
                    got += data
            except OSError as exc:
                self.seen.answers.append(errno.errorcode[exc.errno or 0])
                return
        self.seen.answers.append(got)

    async def ask(self, words: bytes = b"words") -> None:
        """One short connection, until its leg is at rest again and all is counted."""
        await self.finish(self.dial(words))
        await self.settle()

    async def settle(self) -> None:
        """Wait until no connection is left."""
        await until(lambda: not len(self.listen.live) and not len(self.connect.live))

    async def rest(self, legs: int = 1) -> None:
        """Wait until so many legs are at rest on both sides."""
        await self.settle()
        await until(lambda: len(self.listen.legs) == len(self.connect.legs) == legs)


Case = Callable[[Rig], Awaitable[None]]


def plan(mode: Mode, to: TcpAddress, **changes: Any) -> TunnelPlan:
    other = ENDS[Mode.CONNECT if mode is Mode.LISTEN else Mode.LISTEN]
    fields = {"auth": KeyAuth(ENDS[mode], {other.public: "peer"}), "suites": (Suite.HYBRID_KEYS,), "keep": KeepPlan()}
    return TunnelPlan(mode.value, mode, TcpAddress("127.0.0.1", 0), (to,), **(fields | changes))


@asynccontextmanager
async def driven(compiled: bool) -> AsyncIterator[PumpEngine]:
    """An engine that Trio's loop drives."""
    engine = PumpEngine(compiled=compiled)
    trio_loop.start(engine)
    await until(lambda: engine._guest >= 0)  # with several epoll sets in this process, the engine looks for Trio's
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def beside(pump: PumpEngine, patch: pytest.MonkeyPatch, *, module: bool) -> Iterator[KernelEngine]:
    """A kernel engine beside a pump. Without the module it refuses every connection, as the module does a unix socket."""

    def refuse(handover: Handover) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if not module:
        patch.setattr(kernel, "probe", lambda: True)
        patch.setattr(kernel, "hand_over", refuse)
    engine = KernelEngine()
    engine.share(pump)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


@asynccontextmanager
async def pair(
    patch: pytest.MonkeyPatch,
    *,
    compiled: bool,
    greeting: bytes = b"",
    listen: Any = None,
    connect: Any = None,
    module: bool | None = None,
) -> AsyncIterator[Rig]:
    """Both tunnels. `module`: they have the kernel engine, with the module or without it; None for the user-space engine."""
    target = Target(greeting)
    async with contextlib.AsyncExitStack() as stack:
        pump = await stack.enter_async_context(driven(compiled))
        engine = pump if module is None else stack.enter_context(beside(pump, patch, module=module))
        nursery = await stack.enter_async_context(trio.open_nursery())
        connections = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(target.serve)
        listening = Tunnel(plan(Mode.LISTEN, target.address, **(listen or {})), engine)
        listening.open()
        wire = TcpAddress("127.0.0.1", listening.listeners[0].getsockname()[1])
        connecting = Tunnel(plan(Mode.CONNECT, wire, **(connect or {})), engine)
        connecting.open()
        rig = Rig(listening, connecting, target, patch)
        go_on = LiveConnections.go_on

        async def counted(live: LiveConnections, connection: Any, steps: Any) -> None:
            rig.seen.tasks[connection.tunnel] += 1
            await go_on(live, connection, steps)

        patch.setattr(LiveConnections, "go_on", counted)
        for tunnel in (listening, connecting):
            nursery.start_soon(tunnel.accept, connections)
        yield rig
        await rig.settle()
        for tunnel in (connecting, listening):
            close_listeners(await tunnel.release())
        rig.seen.said = target.said
        rig.seen.counts = [_counts(tunnel) for tunnel in (listening, connecting)]
        connections.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def _counts(tunnel: Tunnel) -> dict[str, Any]:
    """The counters of a tunnel, without durations and times."""
    names = {each.name for each in dataclasses.fields(tunnel.ledger)} - {"handshakes", "dials"}
    counts = {name: getattr(tunnel.ledger, name) for name in names}
    uses = [use.total for use in tunnel.ledger.pairs.values()]
    refusals = [(each.reason, each.peer, each.count, PORT.sub("*", each.why)) for each in tunnel.ledger.refusals]
    endpoints = [(each.live, each.failures) for _, _, targets in tunnel.behind for each in targets.endpoints]
    steps = tunnel.ledger.handshakes.results, tunnel.ledger.dials.results
    counts["limits"] = {name: bool(count) for name, count in counts["limits"].items()}  # each wake-up of the waiting counts
    return counts | {"uses": uses, "refusals": refusals, "endpoints": endpoints, "steps": steps}


def _line(line: MutableMapping[str, Any]) -> dict[str, str]:
    return {name: PORT.sub("*", str(value)) for name, value in line.items() if name not in ("channel", "seconds", "exc_info")}


def run(case: Case, *, quick: bool, compiled: bool = True, **options: Any) -> Seen:
    """Run a case one way."""

    async def both() -> Seen:
        with pytest.MonkeyPatch.context() as patch:
            # Times after which a session takes another way. A busy machine must not reach them.
            patch.setattr(quick_start, "MOMENT", 10.0)
            patch.setattr(session_connect, "SILENCE", 30.0)
            patch.setattr(peer_leg, "YOUNG", 60.0)
            if not quick:
                patch.setattr(Tunnel, "_watching", None)
            async with pair(patch, compiled=compiled, **options) as rig:
                await case(rig)
        return rig.seen

    with structlog.testing.capture_logs() as lines:
        seen = trio.run(both)
    seen.lines = sorted(map(_line, lines), key=str)
    waits = [line for line in seen.lines if line["event"].startswith("limit reached")]
    for line in waits[1:]:  # each wake-up of the waiting says so
        seen.lines.remove(line)
    return seen


def same(case: Case, *, listen_tasks: int, connect_tasks: int, compiled: bool = True, **options: Any) -> Seen:
    """Run a case both ways and compare. `listen_tasks` and `connect_tasks`: sessions that needed a task nevertheless."""
    slow = run(case, quick=False, compiled=compiled, **options)
    seen = run(case, quick=True, compiled=compiled, **options)
    assert seen.answers == slow.answers
    assert sorted(seen.said) == sorted(slow.said)
    assert seen.lines == slow.lines
    assert seen.counts == slow.counts
    assert seen.tasks == {"listen": listen_tasks, "connect": connect_tasks}
    return seen
