"""Admission: who gets in, who waits, who gives up a place. Listener and sessions are the test's own, and the clock jumps."""

from __future__ import annotations

import collections
import dataclasses
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth, Mode, PskAuth, TunnelPlan
from stcp_proxy.config.plan import CapturePlan, InterceptPlan, RoutePlan
from stcp_proxy.errors import Code, LogClass, TargetRefused
from stcp_proxy.keys import PrivateKey, PublicKey, generate_psk
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.original import Interception
from stcp_proxy.net.pattern import parse_pattern
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.engine import EndReason, Handover, Relay, RelayEnd
from stcp_proxy.session.record import Connection
from stcp_proxy.tunnel.tunnel import Tunnel
from stcp_proxy.upstream.routes import Way

IDENTITY = PrivateKey(Secret(bytes(range(32))))
PEER = PublicKey(bytes(range(1, 33)))


def make_plan(mode: Mode = Mode.LISTEN, *, connections: int = 100, handshakes: int = 100) -> TunnelPlan:
    return TunnelPlan(
        name="tunnel",
        mode=mode,
        bind=TcpAddress("127.0.0.1", 0),
        to=(TcpAddress("127.0.0.1", 1),),
        auth=KeyAuth(IDENTITY, {PEER: "peer"}),
        suites=(Suite.CLASSIC_KEYS,),
        max_connections=connections,
        max_handshakes=handshakes,
    )


class FakeListener:
    """Accepts what `queue` holds: sockets, or errors to raise. Readable as long as there is something."""

    family = socket.AF_UNIX

    def __init__(self) -> None:
        self.queue: collections.deque[OSError | None] = collections.deque()
        self.calls = 0
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self.callers: list[socket.socket] = []
        """The other ends of the accepted sockets."""

    def fileno(self) -> int:
        return self._fd

    def getsockname(self) -> str:
        return "/listener"

    def add(self, *what: OSError | None) -> None:
        """Errors, or None for a connection; an error stays at the head of the queue until `recover`."""
        self.queue.extend(what)
        os.eventfd_write(self._fd, len(what))

    def recover(self) -> None:
        while self.queue and self.queue[0] is not None:
            self.queue.popleft()
            os.eventfd_read(self._fd)

    def accept(self) -> tuple[socket.socket, str]:
        self.calls += 1
        if not self.queue:
            raise BlockingIOError
        head = self.queue[0]
        if head is not None:
            if head.errno == errno.ECONNABORTED:
                self.recover()
            raise head
        self.queue.popleft()
        os.eventfd_read(self._fd)
        ours, theirs = socket.socketpair()
        self.callers.append(theirs)
        return ours, ""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        for sock in self.callers:
            sock.close()


class FakeEngine:
    name = "fake"

    def start(self) -> None: ...

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        raise NotImplementedError

    def close(self) -> None: ...


class FakeSession:
    """A session that does what the test says, and tells when it began."""

    def __init__(self, rig: Rig, connection: Connection, sock: socket.socket) -> None:
        self.rig, self.connection, self.sock = rig, connection, sock

    async def run(self) -> None:
        self.rig.began.append((trio.current_time() - self.rig.start, self.connection))
        try:
            await self.rig.behave(self)
        finally:
            self.sock.close()


async def forever(_session: FakeSession) -> None:
    await trio.sleep_forever()


async def handed_over(session: FakeSession) -> None:
    await trio.lowlevel.checkpoint()


class Rig:
    """A tunnel that accepts from a `FakeListener`.

    Attributes:
        behave: what every new session does.
        began: when sessions began, in seconds, and their connections.
    """

    def __init__(self, tunnel: Tunnel, listener: FakeListener) -> None:
        self.tunnel = tunnel
        self.listener = listener
        self.behave: Callable[[FakeSession], Awaitable[None]] = forever
        self.began: list[tuple[float, Connection]] = []
        self.start = trio.current_time()

    @property
    def times(self) -> list[float]:
        return [round(when, 3) for when, _ in self.began]


@asynccontextmanager
async def serving(plan: TunnelPlan, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    tunnel = Tunnel(plan, FakeEngine())
    listener = FakeListener()
    rig = Rig(tunnel, listener)
    tunnel.open([listener])  # type: ignore[list-item]
    monkeypatch.setattr(tunnel, "_session", lambda connection, sock: FakeSession(rig, connection, sock))
    try:
        async with trio.open_nursery() as connections:
            connections.start_soon(tunnel.accept, connections)
            yield rig
            connections.cancel_scope.cancel()
    finally:
        tunnel.close()


@pytest.fixture
def logs() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


def of(logs: list[dict[str, Any]], event: str, **fields: Any) -> list[dict[str, Any]]:
    return [line for line in logs if {"event": event, **fields}.items() <= line.items()]


LIMIT = "limit reached: new connections wait"
EXHAUSTED = "cannot accept: new connections wait"


async def test_everybody_gets_in(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    async with serving(make_plan(connections=200, handshakes=200), monkeypatch) as rig:
        rig.listener.add(*[None] * 150)  # more than one batch
        await trio.sleep(0.5)
        assert len(rig.began) == len(rig.tunnel.live) == 150
    assert not of(logs, LIMIT)


async def test_over_max_connections_wait_in_the_backlog(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    async with serving(make_plan(connections=3), monkeypatch) as rig:
        rig.behave = handed_over
        rig.listener.add(*[None] * 5)
        await trio.sleep(100)
        assert len(rig.began) == 3
        calls = rig.listener.calls
        await trio.sleep(1000)
        assert rig.listener.calls == calls  # nobody asks in vain
        connection = rig.began[0][1]
        rig.tunnel.live.settle(connection, RelayEnd(EndReason.FINISHED, 0, 0))
        await trio.sleep(0.1)
        assert len(rig.began) == 4
        assert len(rig.tunnel.live) == 3
    line, *_ = of(logs, LIMIT)  # how often it is written is the log's business
    assert (line["limit"], line["value"], line["log_level"]) == ("max_connections", 3, "warning")


class Carried:
    """A connection that an engine has taken."""

    engine, why_engine = "fake", ""

    def counts(self) -> tuple[int, int]:
        return 0, 0

    def abort(self, code: Code, text: str) -> None: ...


async def test_an_end_in_trios_thread_is_settled_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """Unless the session has not heard yet that its connection is carried; what comes from another thread is sent over."""
    async with serving(make_plan(), monkeypatch) as rig:
        rig.behave = handed_over
        rig.listener.add(None, None, None)
        await trio.sleep(1)
        tunnel, (early, late, foreign) = rig.tunnel, [connection for _, connection in rig.began]
        late.relay = foreign.relay = Carried()
        end = RelayEnd(EndReason.FINISHED, 0, 0)
        tunnel.live.settle(early, end)
        assert tunnel.connections == {early, late, foreign}
        tunnel.live.settle(late, end)
        assert tunnel.connections == {early, foreign}
        await trio.to_thread.run_sync(tunnel.live.settle, foreign, end)
        await trio.sleep(1)
        assert not tunnel.connections
    assert len(of(logs, "connection closed")) == 3


async def test_silent_strangers_give_up_their_places(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """After a second, oldest first, one for each newcomer."""
    async with serving(make_plan(handshakes=4), monkeypatch) as rig:
        rig.listener.add(*[None] * 6)
        await trio.sleep(0.9)
        assert rig.times == [0, 0, 0, 0]
        assert not of(logs, "connection refused")
        await trio.sleep(0.2)
        assert rig.times == [0, 0, 0, 0, 1, 1]
        assert len(of(logs, "connection refused", reason="over_limit")) == 2
        rig.listener.add(None, None, None)
        await trio.sleep(0.1)
        # Two more of the first have had their second; the next to go began at 1 s.
        assert rig.times == [0, 0, 0, 0, 1, 1, 1.1, 1.1]
        await trio.sleep(1)
        assert rig.times[-1] == 2
        assert len(rig.tunnel.live) == 4
    assert of(logs, LIMIT)[0]["limit"] == "max_handshakes"


async def test_an_unauthenticated_caller_with_unread_bytes_keeps_its_place(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """A busy proxy may not have read them yet: the caller is not silent, and the next one that is loses its place."""
    async with serving(make_plan(handshakes=2), monkeypatch) as rig:
        for _ in range(2):
            rig.listener.add(None)
            await trio.sleep(0.1)
        (_, talking), (_, silent) = rig.began
        rig.listener.callers[0].send(b"the first bytes of message 1")
        rig.listener.add(None)
        await trio.sleep(1)
        assert rig.times == [0, 0.1, 1.1]
        assert talking in rig.tunnel.live.all
        assert silent not in rig.tunnel.live.all
    assert len(of(logs, "connection refused", reason="over_limit")) == 1


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("limit", ["max_connections", "max_handshakes"])
async def test_a_reload_that_raises_a_limit_admits_who_waits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any, mode: Mode, limit: str
) -> None:
    """At once, although no connection ends and nobody loses a place."""
    before = dataclasses.replace(make_plan(mode), **{limit: 1})
    async with serving(before, monkeypatch) as rig:
        if limit == "max_connections":
            rig.behave = handed_over  # only unauthenticated callers lose their places
        rig.listener.add(None, None)
        await trio.sleep(0.5)
        assert rig.times == [0]
        rig.tunnel.replace(dataclasses.replace(before, **{limit: 2}), FakeEngine())
        await trio.sleep(0.1)
        assert rig.times == [0, 0.5]


async def test_nobody_gives_up_a_place_that_nobody_needs(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """Full, and no newcomer: nothing happens, and nothing is said."""
    async with serving(make_plan(connections=4, handshakes=4), monkeypatch) as rig:
        rig.listener.add(*[None] * 4)
        await trio.sleep(100)
        assert len(rig.tunnel.live) == 4
        assert not of(logs, LIMIT)
        assert not of(logs, "connection refused")


async def test_who_has_proved_itself_keeps_its_place(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    async with serving(make_plan(handshakes=2), monkeypatch) as rig:

        async def proves(session: FakeSession) -> None:
            rig.tunnel.live.proved(session.connection)
            await trio.sleep_forever()  # dialling

        rig.behave = proves
        rig.listener.add(*[None] * 10)
        await trio.sleep(100)
        assert rig.times == [0] * 10
        assert len(rig.tunnel.live) == 10
    assert not of(logs, "connection refused", reason="over_limit")


async def test_connect_side_gives_up_nobody(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    """Its callers are applications, and its handshakes end by their own deadline."""
    async with serving(make_plan(Mode.CONNECT, handshakes=2), monkeypatch) as rig:

        async def slow(_session: FakeSession) -> None:
            await trio.sleep(7)

        rig.behave = slow
        rig.listener.add(*[None] * 4)
        await trio.sleep(20)
        assert rig.times == [0, 0, 7, 7]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_out_of_descriptors(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any, number: int) -> None:
    """A pause between attempts, one log line, and on it goes."""
    async with serving(make_plan(), monkeypatch) as rig:
        rig.listener.add(OSError(number, os.strerror(number)), None)
        await trio.sleep(10)
        assert 90 <= rig.listener.calls <= 110
        assert rig.began == []
        rig.listener.recover()
        await trio.sleep(0.2)
        assert len(rig.began) == 1
    line, *_ = of(logs, EXHAUSTED)
    assert line["why"] == os.strerror(number)
    assert "ulimit" in line["remedy"]


async def test_client_that_is_gone_before_it_was_accepted(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(make_plan(), monkeypatch) as rig:
        rig.listener.add(OSError(errno.ECONNABORTED, "aborted"), None)
        await trio.sleep(0.1)
        assert len(rig.began) == 1


async def test_failure_of_one_reaches_no_other(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    async with serving(make_plan(), monkeypatch) as rig:
        failures: list[Exception] = [ZeroDivisionError("a bug"), TargetRefused("nobody there", remedy="start it")]

        async def fail(_session: FakeSession) -> None:
            raise failures.pop(0)

        rig.behave = fail
        rig.listener.add(None, None)
        await trio.sleep(0.1)
        rig.behave = forever
        rig.listener.add(None)
        await trio.sleep(0.1)
        assert len(rig.began) == 3
        assert len(rig.tunnel.live) == 1
    (bug,) = of(logs, "connection refused", reason="internal_error")
    assert bug["log_level"] == "error"
    assert isinstance(bug["exc_info"], ZeroDivisionError)
    (refused,) = of(logs, "connection refused", reason="target_refused")
    assert (refused["why"], refused["remedy"], refused["cause"]) == ("nobody there", "start it", "target")


async def test_end_of_a_relay_is_one_line(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    """From another thread, as engines call; with what went before the engine counted."""
    async with serving(make_plan(), monkeypatch) as rig:

        async def relay(session: FakeSession) -> None:
            record = session.connection
            record.channel, record.peer, record.target, record.early = "0011223344556677", "peer", "127.0.0.1:1", 5
            end = RelayEnd(EndReason.PEER_RESET, 10, 20, Code.SHUTTING_DOWN, "now\n")
            await trio.to_thread.run_sync(record.relay_ended, end)

        rig.behave = relay
        rig.listener.add(None)
        await trio.sleep(0.1)
        await rig.tunnel.live.wait_idle()
    (line,) = of(logs, "connection closed")
    line.pop("seconds")
    assert line == {
        "event": "connection closed",
        "remedy": "connect again when the peer runs",
        "log_class": LogClass.CONNECTIONS,
        "log_level": "info",
        "tunnel": "tunnel",
        "client": "unix",
        "channel": "0011223344556677",
        "peer": "peer",
        "target": "127.0.0.1:1",
        "reason": "peer_reset",
        "bytes_to_wire": 15,
        "bytes_to_plain": 20,
        "engine": "",
        "why": "it is shutting down (now\\n)",
    }


async def test_stop_during_the_opening(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    async with serving(make_plan(), monkeypatch) as rig:
        rig.listener.add(None)
        await trio.sleep(0.1)
    (line,) = of(logs, "connection refused")
    assert (line["reason"], line["log_level"]) == ("shutting_down", "info")
    assert len(rig.tunnel.live) == 0


ROUTED = (TcpAddress("10.9.9.9", 1), TcpAddress("10.9.9.9", 2))


def make_routes(*, auth: KeyAuth | None = None) -> TunnelPlan:
    matches = [parse_pattern("10.0.0.1:80"), parse_pattern("10.1.0.0/16")]
    routes = [
        RoutePlan(match, (to,), auth or PskAuth(generate_psk()), service=str(to.port))
        for match, to in zip(matches, ROUTED, strict=True)
    ]
    capture = CapturePlan(Interception.REDIRECT, 15001, True, True, False, None, None, (), (), ())
    plan = make_plan(Mode.CONNECT)
    return dataclasses.replace(plan, to=ROUTED, intercept=InterceptPlan(tuple(routes), False, capture))


async def test_a_target_behind_a_route_is_told_once() -> None:
    found = Tunnel(make_routes(), FakeEngine()).behind
    assert [(service, route, str(targets.to[0])) for service, route, targets in found] == [
        ("", "10.0.0.1:80", "10.9.9.9:1"),
        ("", "10.1.0.0/16", "10.9.9.9:2"),
    ]


@pytest.mark.parametrize("down", [None, 0, 1])
async def test_every_route_is_asked_for_its_target_as_its_connections_are(
    monkeypatch: pytest.MonkeyPatch, down: int | None
) -> None:
    """By its own keys and for its own service, and spared by the rules; one that does not answer is enough."""
    asked = {}

    async def reach(plan: TunnelPlan, way: Way) -> None:
        (to,) = way.targets.to
        asked[to] = (way.trust.credentials.psk, way.opening.service, way.targets.own is not None)
        if down is not None and to == ROUTED[down]:
            raise TargetRefused("down", remedy="start it")

    monkeypatch.setattr("stcp_proxy.tunnel.upstreams.reach", reach)
    plan = make_routes()
    assert plan.intercept is not None
    with nullcontext() if down is None else pytest.raises(TargetRefused):
        await Tunnel(plan, FakeEngine()).reach()
    assert asked == {
        route.to[0]: (route.auth.secret, route.service, True)
        for route in plan.intercept.routes
        if isinstance(route.auth, PskAuth)
    }


@pytest.mark.parametrize("routed", [False, True])
async def test_a_reload_forgets_which_keys_worked_on_every_way(routed: bool) -> None:
    auth = KeyAuth(IDENTITY, {PEER: "peer", PublicKey(bytes(range(2, 34))): "peer"})
    plan = make_routes(auth=auth) if routed else dataclasses.replace(make_plan(Mode.CONNECT), auth=auth)
    tunnel = Tunnel(plan, FakeEngine())
    choices = [way.trust.choice for way in tunnel.upstreams.ways]
    assert len(choices) == (2 if routed else 1)
    before = [choice.order("there", 0.0) for choice in choices]
    for choice, (first, second) in zip(choices, before, strict=True):
        choice.worked("there", second, 0.0)
        assert choice.order("there", 1.0) == [second, first]
    tunnel.upstreams.forget_key_order()
    assert [choice.order("there", 1.0) for choice in choices] == before
