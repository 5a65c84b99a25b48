"""Deadlines of a connection that passes unencrypted. Its sockets are real.

The clock moves when a test says so, and never while bytes are on their way.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import termios
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth, Mode, TunnelPlan
from stcp_proxy.counters import Ledger
from stcp_proxy.errors import TargetTimedOut
from stcp_proxy.keys import PrivateKey
from stcp_proxy.net.address import TcpAddress
from stcp_proxy.net.dial import Failure
from stcp_proxy.net.leg_stream import LegStream
from stcp_proxy.net.own_connections import OwnConnections
from stcp_proxy.protocol.opening import Endpoint
from stcp_proxy.protocol.wire import Suite
from stcp_proxy.relay.engine import EndReason, RelayEnd
from stcp_proxy.session import pass_through
from stcp_proxy.session.pass_through import pass_on
from stcp_proxy.session.record import Connection

IDLE, HALF_CLOSE = 600.0, 60.0
PLAN = TunnelPlan(
    name="outbound",
    mode=Mode.CONNECT,
    bind=TcpAddress("127.0.0.1", 0),
    to=(TcpAddress("127.0.0.1", 1),),
    auth=KeyAuth(PrivateKey.generate(), {}),
    suites=(Suite.CLASSIC_KEYS,),
    idle_timeout=IDLE,
    half_close_timeout=HALF_CLOSE,
)


@dataclass
class Owner:
    ledger: Ledger = field(default_factory=Ledger)
    ends: list[tuple[float, RelayEnd]] = field(default_factory=list)
    ended: trio.Event = field(default_factory=trio.Event)

    def settle(self, connection: Connection, end: RelayEnd) -> None:
        self.ends.append((trio.current_time(), end))
        self.ended.set()

    def forget(self, connection: Connection) -> None: ...


@dataclass
class Rig:
    """An application and the server that it reaches unencrypted.

    Attributes:
        application, server: their sockets.
        owner: hears of the end.
        start: when the relay began.
    """

    application: socket.socket
    server: socket.socket
    owner: Owner
    clock: MockClock
    start: float

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    async def passes(self, sender: socket.socket, data: bytes) -> None:
        """Send bytes, or EOF if there are none, and wait until they have come through."""
        sender.sendall(data) if data else sender.shutdown(socket.SHUT_WR)
        await self.arrives(self.server if sender is self.application else self.application, data)

    async def arrives(self, receiver: socket.socket, data: bytes) -> None:
        await trio.lowlevel.wait_readable(receiver)
        assert receiver.recv(100) == data
        await trio.testing.wait_all_tasks_blocked()

    async def end(self) -> tuple[float, EndReason]:
        """Seconds until the relay ended, and why."""
        await self.owner.ended.wait()
        ((when, end),) = self.owner.ends
        return when - self.start, end.reason

    async def deadline(self) -> tuple[float, EndReason]:
        """The same, where a deadline ends it: nothing is on its way, and the clock may jump."""
        self.clock.autojump_threshold = 0
        return await self.end()


@asynccontextmanager
async def passing(plan: TunnelPlan, clock: MockClock) -> AsyncIterator[Rig]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        application, plain = map(stack.enter_context, socket.socketpair())
        plain.setblocking(False)
        owner = Owner()
        place = Endpoint(ipaddress.IPv4Address("127.0.0.1"), listener.getsockname()[1])
        record = Connection("outbound", "an application", owner)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on, plan, LegStream(plain), place, OwnConnections(), record)
            await trio.lowlevel.wait_readable(listener)
            server = stack.enter_context(listener.accept()[0])
            while record.relay is None:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await trio.testing.wait_all_tasks_blocked()
            yield Rig(application, server, owner, clock, trio.current_time())
            nursery.cancel_scope.cancel()


async def test_a_silent_connection_ends_at_the_idle_timeout(mock_clock: MockClock) -> None:
    async with passing(PLAN, mock_clock) as rig:
        await rig.wait(IDLE - 1)
        assert not rig.owner.ends
        seconds, reason = await rig.deadline()
    assert reason is EndReason.IDLE_TIMEOUT
    assert seconds == pytest.approx(IDLE)


@pytest.mark.parametrize("speaker", ["application", "server"])
async def test_bytes_of_either_side_begin_the_idle_timeout_anew(mock_clock: MockClock, speaker: str) -> None:
    async with passing(PLAN, mock_clock) as rig:
        sender = rig.application if speaker == "application" else rig.server
        for _ in range(3):
            await rig.wait(0.75 * IDLE)
            await rig.passes(sender, b"still here")
        seconds, reason = await rig.deadline()
    assert reason is EndReason.IDLE_TIMEOUT
    assert seconds == pytest.approx(3.25 * IDLE)


@pytest.mark.parametrize("speaker", ["application", "server"])
async def test_bytes_that_came_while_the_process_was_paused_count(mock_clock: MockClock, speaker: str) -> None:
    async with passing(PLAN, mock_clock) as rig:
        sender, receiver = (rig.application, rig.server) if speaker == "application" else (rig.server, rig.application)
        sender.sendall(b"still here")
        while sender.family != socket.AF_UNIX and not acknowledged(sender):
            pass  # this process is paused, and the kernel delivers
        await rig.wait(2 * IDLE)
        assert not rig.owner.ends
        await rig.arrives(receiver, b"still here")
        seconds, reason = await rig.deadline()
    assert reason is EndReason.IDLE_TIMEOUT
    assert seconds == pytest.approx(3 * IDLE)


def acknowledged(sock: socket.socket) -> bool:
    """Whether the other end of a TCP connection has all bytes in its buffer."""
    return fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) == bytes(4)


async def test_a_destination_that_does_not_answer_costs_the_dial_timeout(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_answer(address: object, deadline: float, *, own: OwnConnections) -> Failure:
        await trio.sleep_until(deadline)
        return Failure(str(address), errno.ETIMEDOUT, "timed out")

    monkeypatch.setattr(pass_through, "connect", no_answer)
    application, plain = socket.socketpair()
    plain.setblocking(False)
    started = trio.current_time()
    place = Endpoint(ipaddress.IPv4Address("192.0.2.1"), 80)
    record = Connection("outbound", "an application", Owner())
    with application, plain, trio.fail_after(2 * PLAN.dial_timeout), pytest.raises(TargetTimedOut):
        await pass_on(PLAN, LegStream(plain), place, OwnConnections(), record)
    assert trio.current_time() - started == pytest.approx(PLAN.dial_timeout)


async def test_no_idle_timeout_where_the_file_sets_none(mock_clock: MockClock) -> None:
    async with passing(replace(PLAN, idle_timeout=None), mock_clock) as rig:
        await rig.wait(50 * IDLE)
        assert not rig.owner.ends


@pytest.mark.parametrize("idle", [IDLE, None])
@pytest.mark.parametrize("first", ["application", "server"])
async def test_after_one_end_the_half_close_timeout_counts(mock_clock: MockClock, first: str, idle: float | None) -> None:
    """Bytes of the other side begin it anew."""
    async with passing(replace(PLAN, idle_timeout=idle), mock_clock) as rig:
        ends, speaks = (rig.application, rig.server) if first == "application" else (rig.server, rig.application)
        await rig.passes(ends, b"")
        await rig.wait(0.75 * HALF_CLOSE)
        await rig.passes(speaks, b"the rest")
        seconds, reason = await rig.deadline()
    assert reason is EndReason.HALF_CLOSE_TIMEOUT
    assert seconds == pytest.approx(1.75 * HALF_CLOSE)


async def test_both_legs_are_reset_if_the_process_dies_and_finished_if_it_does_not(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    for name in ("reset_on_close", "finish_on_close"):
        monkeypatch.setattr(pass_through, name, lambda leg, name=name: calls.append((name, leg.family)))
    async with passing(PLAN, mock_clock) as rig:
        families = {socket.AF_UNIX, socket.AF_INET}
        assert set(calls) == {("reset_on_close", family) for family in families}
        calls.clear()
        for sock in (rig.application, rig.server):
            sock.shutdown(socket.SHUT_WR)
        assert (await rig.end())[1] is EndReason.FINISHED
    assert set(calls) == {("finish_on_close", family) for family in families}


async def test_a_connection_that_ends_in_order_meets_no_deadline(mock_clock: MockClock) -> None:
    async with passing(PLAN, mock_clock) as rig:
        for sock in (rig.application, rig.server):
            sock.shutdown(socket.SHUT_WR)
        seconds, reason = await rig.end()
    assert reason is EndReason.FINISHED
    assert seconds == 0
