"""A connection that begins without a task looks like one that begins in a task: same answers, log lines and counts.

Both proxies of a pair are tunnels of this process, with one engine in Trio's loop. Each case runs both ways, and what was seen is
compared. Connection 1 of each case makes the wire leg that the later ones find at rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
import trio

from stcp_proxy.config import HandOn, KeyAuth, Mode, TunnelPlan
from stcp_proxy.config.plan import KeepPlan
from stcp_proxy.errors import KeyRevoked
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net import dial
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.listen import close_listeners
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay import trio_loop
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.session import peer_leg
from stcp_proxy.session.peer_leg import PeerLeg
from stcp_proxy.tunnel import quick_start
from stcp_proxy.tunnel.connections import LiveConnections
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.upstream.targets import Targets

ENDS = {Mode.LISTEN: PrivateKey.generate(), Mode.CONNECT: PrivateKey.generate()}
NOWHERE = TcpAddress("127.0.0.1", 1)
_PORT = re.compile(r"127\.0\.0\.1( 127\.0\.0\.1)?[: ]\d+( \d+)?")


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
    auth = KeyAuth(ENDS[mode], {other.public: "peer"})
    bind, keep = TcpAddress("127.0.0.1", 0), KeepPlan()
    return TunnelPlan(mode.value, mode, bind, (to,), auth, (Suite.HYBRID_KEYS,), keep=keep, **changes)


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


@asynccontextmanager
async def pair(
    patch: pytest.MonkeyPatch, *, compiled: bool, greeting: bytes = b"", listen: Any = None, connect: Any = None
) -> AsyncIterator[Rig]:
    target = Target(greeting)
    async with driven(compiled) as engine, trio.open_nursery() as nursery, trio.open_nursery() as connections:
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
    refusals = [(each.reason, each.peer, each.count, _PORT.sub("*", each.why)) for each in tunnel.ledger.refusals]
    endpoints = [(each.live, each.failures) for _, _, targets in tunnel.behind for each in targets.endpoints]
    steps = tunnel.ledger.handshakes.results, tunnel.ledger.dials.results
    counts["limits"] = {name: bool(count) for name, count in counts["limits"].items()}  # each wake-up of the waiting counts
    return counts | {"uses": uses, "refusals": refusals, "endpoints": endpoints, "steps": steps}


def _line(line: MutableMapping[str, Any]) -> dict[str, str]:
    return {name: _PORT.sub("*", str(value)) for name, value in line.items() if name not in ("channel", "seconds", "exc_info")}


def run(case: Case, *, quick: bool, compiled: bool = True, **options: Any) -> Seen:
    """Run a case one way."""

    async def both() -> Seen:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quick_start, "MOMENT", 10.0)  # a busy machine must not need a task
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


# -- no task ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_client_that_speaks_first(compiled: bool) -> None:
    async def case(rig: Rig) -> None:
        for number in range(5):
            await rig.ask(b"words %d" % number)
            await rig.rest()

    seen = same(case, listen_tasks=1, connect_tasks=1, compiled=compiled)
    assert seen.answers == seen.said == [b"words %d" % number for number in range(5)]


def test_server_that_speaks_first() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(3):
            await rig.ask(b"")
            await rig.rest()

    assert same(case, listen_tasks=1, connect_tasks=1, greeting=b"welcome").answers == [b"welcome"] * 3


def test_several_at_a_time() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(2):
            clients = [rig.dial(bytes([number])) for number in range(8)]
            for client in clients:
                await rig.finish(client)
            await rig.rest(8)

    assert same(case, listen_tasks=8, connect_tasks=8).answers == [bytes([number]) for number in range(8)] * 2


def held_openings(rig: Rig) -> list[Any]:
    """Let the listen tunnel hold each OPEN on a kept leg back. Returns what has come; `rig.listen._admit_kept` serves it."""
    held: list[Any] = []
    rig.patch.setattr(rig.listen.legs, "_serve", lambda *opened: held.append(opened))
    return held


def test_client_that_speaks_a_moment_after_it_connected() -> None:
    """Its bytes go behind OPEN, and do not wait for ACCEPT."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        held = held_openings(rig)
        client = rig.dial()
        await until(lambda: held)
        client.send(b"words")
        leg: PeerLeg = held[0][0]
        if rig.connect._watching is not None:
            await until(lambda: leg.stream.has_news)
        rig.listen._admit_kept(*held[0])
        await rig.finish(client)

    assert same(case, listen_tasks=2, connect_tasks=1).answers == [b"words"] * 2


def test_client_that_ends_without_a_word() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        held = held_openings(rig)
        client = rig.dial()
        await until(lambda: held)
        client.shutdown(socket.SHUT_WR)
        await look_around()
        rig.listen._admit_kept(*held[0])
        await rig.finish(client)

    assert same(case, listen_tasks=2, connect_tasks=1).answers == [b"words", b""]


def test_leg_that_rested_for_long_gets_no_bytes_behind_open() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(peer_leg, "YOUNG", 0.0)
        held = held_openings(rig)
        client = rig.dial()
        await until(lambda: held)
        client.send(b"words")
        await look_around()
        assert not held[0][0].stream.has_news
        rig.listen._admit_kept(*held[0])
        await rig.finish(client)

    assert same(case, listen_tasks=2, connect_tasks=1).answers == [b"words"] * 2


def test_bytes_behind_open_are_not_sent_again() -> None:
    """The leg ends without an answer: the peer may have acted on them."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        held = held_openings(rig)
        client = rig.dial()
        await until(lambda: held)
        client.send(b"words")
        leg: PeerLeg = held[0][0]
        await until(lambda: leg.stream.has_news)
        leg.stream.close()
        await rig.finish(client)

    seen = run(case, quick=True)
    assert seen.answers == [b"words", "ECONNRESET"]
    assert seen.said == [b"words"]
    assert [line["reason"] for line in seen.lines if line["event"] == "connection refused"] == ["truncated"]


def test_peer_that_left_gets_bytes_that_go_on_elsewhere() -> None:
    """BYE crosses OPEN and the bytes behind it: it acted on nothing, and they go with OPEN on another leg."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        (kept,) = rig.listen.legs._legs.values()
        opened = held_openings(rig)
        rig.patch.setattr(rig.listen.legs, "read", lambda leg: opened.append(leg))
        client = rig.dial()
        await until(lambda: opened)
        client.send(b"words")
        await look_around()
        rig.listen.legs._part(kept)
        await rig.finish(client)

    seen = same(case, listen_tasks=2, connect_tasks=2)
    assert seen.answers == seen.said == [b"words"] * 2


def test_client_that_resets_behind_open() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        held = held_openings(rig)
        client = rig.dial()
        await until(lambda: held)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: not len(rig.connect.live))
        held[0][0].stream.close()

    seen = run(case, quick=True)
    assert [line["reason"] for line in seen.lines if line["event"] == "connection refused"] == ["plain_reset"]
    assert seen.said == [b"words"]


def test_leg_that_has_rested_for_long_gets_no_early_bytes() -> None:
    async def case(rig: Rig) -> None:
        rig.patch.setattr(peer_leg, "YOUNG", 0.0)
        for _ in range(3):
            await rig.ask()
            await rig.rest()

    assert same(case, listen_tasks=1, connect_tasks=1).answers == [b"words"] * 3


def test_proxy_header_to_the_target() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(2):
            await rig.ask()
            await rig.rest()
        rig.target.said[:] = [_PORT.sub("*", said.decode()).encode() for said in rig.target.said]
        rig.seen.answers[:] = [_PORT.sub("*", got.decode()).encode() for got in rig.seen.answers if isinstance(got, bytes)]

    seen = same(case, listen_tasks=1, connect_tasks=1, listen={"hand_on": HandOn(proxy_protocol="v1")})
    assert seen.said[1].startswith(b"PROXY TCP4")


def test_target_that_answers_in_a_moment() -> None:
    """`connect` says that it is in progress, and a moment later the socket is writable."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        connect_now = dial._connect_now

        def later(sock: socket.socket, sockaddr: Any, own: Any) -> int:
            assert connect_now(sock, sockaddr, own) == 0
            return errno.EALREADY

        rig.patch.setattr(dial, "_connect_now", later)
        await rig.ask()

    assert same(case, listen_tasks=1, connect_tasks=1).answers == [b"words"] * 2


def test_maximum_lifetime() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(2):
            await rig.ask()
            await rig.rest()
        client = rig.dial(b"")
        await until(lambda: rig.connect.live.lifetimes)
        await rig.finish(client)

    same(case, listen_tasks=1, connect_tasks=1, connect={"max_lifetime": 0.5})


# -- goes on in a task --------------------------------------------------------------------------------------------------------


def test_moment_that_is_over() -> None:
    """Each wait without a task ends at once."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(quick_start, "MOMENT", 0.0)
        held: list[Any] = []
        rig.patch.setattr(rig.listen.legs, "_serve", lambda *opened: held.append(opened))
        client = rig.dial(b"words")
        await until(lambda: held)
        await until(lambda: rig.seen.tasks["connect"] == 2)
        rig.listen._admit_kept(*held[0])
        await rig.finish(client)

    assert same(case, listen_tasks=2, connect_tasks=2).answers == [b"words"] * 2


def test_target_that_refuses() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(dial, "_connect_now", lambda *_: errno.ECONNREFUSED)
        await rig.finish(rig.dial(b"words"))

    seen = same(case, listen_tasks=2, connect_tasks=1)
    assert seen.answers == [b"words", "ECONNRESET"]


@pytest.mark.parametrize("limit", [{"rate_per_peer": 1}, {"max_connections_per_peer": 1}])
def test_peer_over_its_limit(limit: dict[str, int]) -> None:
    async def case(rig: Rig) -> None:
        first = rig.dial(b"first")
        await until(lambda: rig.target.said and rig.target.said[0])
        if "rate_per_peer" in limit:
            await rig.finish(first)
            await rig.rest()
        await rig.finish(rig.dial(b"second"))
        if "rate_per_peer" not in limit:
            await rig.finish(first)

    seen = same(case, listen_tasks=2, connect_tasks=1 if "rate_per_peer" in limit else 2, listen=limit)
    assert "ECONNRESET" in seen.answers


def test_name_that_has_to_be_looked_up() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        fixed = Targets.fixed

        async def look_up(targets: Targets, address: Any, _deadline: float, *, insist: bool = False) -> Any:
            await trio.sleep(0.001)
            return fixed(targets, address)

        rig.patch.setattr(Targets, "fixed", lambda *_: None)
        rig.patch.setattr(Targets, "look_up", look_up)
        await rig.ask()

    assert same(case, listen_tasks=2, connect_tasks=2).answers == [b"words"] * 2


def test_peer_that_has_left() -> None:
    """BYE is on its way when the next connection takes the leg."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        client = rig.dial(b"words")
        rig.listen.legs._part_all()
        await rig.finish(client)

    assert same(case, listen_tasks=2, connect_tasks=2).answers == [b"words"] * 2


@pytest.mark.parametrize("young", [True, False])
def test_leg_that_ends_without_an_answer(young: bool) -> None:
    """With bytes of the application behind OPEN, nobody may send them again."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        if not young:
            rig.patch.setattr(peer_leg, "YOUNG", 0.0)
        serve = rig.listen.legs._serve

        def cut(leg: PeerLeg, _opening: Opening, _connections: trio.Nursery) -> None:
            rig.patch.setattr(rig.listen.legs, "_serve", serve)
            leg.stream.close()

        rig.patch.setattr(rig.listen.legs, "_serve", cut)
        await rig.finish(rig.dial(b"words"))

    seen = same(case, listen_tasks=1 if young else 2, connect_tasks=2, compiled=True)
    assert seen.answers == [b"words", "ECONNRESET" if young else b"words"]


def test_silent_peer_is_asked_on_a_new_leg_too() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(peer_leg, "YOUNG", 0.0)
        rig.patch.setattr(quick_start, "MOMENT", 0.1)
        rig.patch.setattr("stcp_proxy.session.connect.SILENCE", 0.2)
        held: list[PeerLeg] = []
        rig.patch.setattr(rig.listen.legs, "_serve", lambda leg, *_: held.append(leg))
        await rig.finish(rig.dial(b"words"))
        held[0].stream.close()

    assert same(case, listen_tasks=2, connect_tasks=2).answers == [b"words"] * 2


def test_connection_that_is_cut_while_it_waits() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(quick_start, "MOMENT", 0.1)
        held: list[PeerLeg] = []
        rig.patch.setattr(rig.listen.legs, "_serve", lambda leg, *_: held.append(leg))
        client = rig.dial(b"words")
        await until(lambda: held)
        (connection,) = rig.connect.live.all
        rig.connect.live.cut(connection, KeyRevoked("a key was revoked"))
        await rig.finish(client)
        held[0].stream.close()

    assert same(case, listen_tasks=1, connect_tasks=2).answers[1] == "ECONNRESET"


def test_connection_that_is_cut_before_the_answer_comes() -> None:
    """The answer comes before the session acts on the cut: the relay is aborted."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        held: list[Any] = []
        rig.patch.setattr(rig.listen.legs, "_serve", lambda *opened: held.append(opened))
        client = rig.dial(b"words")
        await until(lambda: held)
        (connection,) = rig.connect.live.all
        rig.connect.live.cut(connection, KeyRevoked("a key was revoked"))
        rig.listen._admit_kept(*held[0])
        await rig.finish(client)
        await rig.settle()

    seen = run(case, quick=True)
    assert seen.answers[1] == "ECONNRESET"
    ends = [line["reason"] for line in seen.lines if line["event"] == "connection closed" and line["tunnel"] == "connect"]
    assert sorted(ends) == ["aborted", "finished"]


def test_client_that_resets_at_once() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        client = rig.dial(b"words")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: rig.connect.ledger.accepted == 2)
        await rig.settle()

    seen = same(case, listen_tasks=1, connect_tasks=1)
    ends = [line["reason"] for line in seen.lines if line["event"] == "connection closed" and line["tunnel"] == "connect"]
    assert ends == ["finished", "plain_reset"]


def test_limit_of_connections() -> None:
    """The second client waits in the backlog until the first has ended."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        first, second = rig.dial(b"1"), rig.dial(b"2")
        await until(lambda: rig.connect.ledger.limits["max_connections"])
        await rig.finish(first)
        await rig.finish(second)

    seen = same(case, listen_tasks=1, connect_tasks=2, connect={"max_connections": 1})
    assert seen.answers == [b"words", b"1", b"2"]
    assert seen.counts[1]["limits"]["max_connections"]


def test_engine_that_leaves_the_loop_of_trio() -> None:
    """After a bug the engine goes on in a thread of its own: nothing begins without a task any more."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        engine: Any = rig.connect.engine

        def fail_once(*_args: Any, **_options: Any) -> bool:
            del engine.run
            raise RuntimeError("a bug")

        engine.run = fail_once
        await until(lambda: engine.has_thread)
        await rig.ask()
        await rig.rest()

    assert same(case, listen_tasks=2, connect_tasks=2).answers == [b"words"] * 2


def test_reload_that_stops_to_keep_legs() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.connect.replace(dataclasses.replace(rig.connect.plan, keep=None), rig.connect.engine)
        await rig.ask()
        await rig.settle()

    assert same(case, listen_tasks=2, connect_tasks=2).answers == [b"words"] * 2
