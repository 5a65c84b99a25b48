"""Who loses its place when too many handshakes are under way."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

import pytest
import structlog
import trio
import trio.testing
from trio.testing import MockClock

from stcp_proxy.agent import agent as agents
from stcp_proxy.agent.handshakes import Record
from stcp_proxy.agent.messages import Pending
from stcp_proxy.agent.netlink_abi import SocketRole
from stcp_proxy.agent.places import Places
from stcp_proxy.config.agent_plan import AgentPlan
from stcp_proxy.errors import Denied
from stcp_proxy.protocol.opening import Endpoint

from .fake_kernel import FakeKernel
from .stage import both_sides, connection, stage


def narrow(most: int) -> AgentPlan:
    return AgentPlan(both_sides().identities, max_handshakes=most)


async def test_at_most_so_many_handshakes(kernel: FakeKernel) -> None:
    """Connecting sockets keep their places; the next one waits."""
    with connection() as (one, _), connection() as (two, _), connection() as (three, _):
        async with stage(kernel, narrow(2)) as running:
            for sock in (one, two, three):
                running.offer(sock, timeout=300)
            await trio.sleep(0.1)
            assert not kernel.done
            await running.done(3)
    assert kernel.errors() == [errno.ETIMEDOUT] * 3


async def test_silent_strangers_hold_nobody_up(kernel: FakeKernel) -> None:
    """The first stranger loses its place to a connection of this host, and the second one to a peer that is admitted."""
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(connection()) for _ in range(4)]
        async with stage(kernel, narrow(2)) as running:
            for _, far in pairs[:2]:
                running.offer(far, role=1, identity="server")
            await trio.testing.wait_all_tasks_blocked(0.01)
            running.offer(pairs[3][0])
            running.offer(pairs[3][1], role=1, identity="server")
            await running.done(4)
    assert [(number[1][0], error) for number, error in zip(kernel.done, kernel.errors(), strict=True)][:2] == [
        (1, errno.ECONNABORTED),
        (2, errno.ECONNABORTED),
    ]
    assert kernel.errors()[2:] == [0, 0]


def record(number: int, remote: str, role: SocketRole = SocketRole.RESPONDER, channel: str = "") -> Record:
    pending = Pending(number, -1, role, 1.0, 0)
    return Record(pending, Endpoint(ipaddress.ip_address(remote), 1), 0.0, 1.0, channel=channel)


async def test_the_crowd_pays(autojump_clock: MockClock) -> None:
    """Of the source with the most places the oldest stranger goes; authenticated peers and connecting sockets stay."""
    places = Places(7)
    held = [
        record(0, "10.0.0.1"),
        record(1, "fd00::1"),
        record(2, "fd00::2"),  # the same network
        record(3, "fd00::3", channel="authenticated"),
        record(4, "fd00::4", SocketRole.INITIATOR),
        record(5, "fd00::5"),
        record(6, "::ffff:10.0.0.1"),
    ]
    scopes = [await places.take(each) for each in held]
    gone = []
    for number in range(7, 12):
        newcomer = record(number, "10.0.0.9", SocketRole.INITIATOR)
        await places.take(newcomer)
        gone += [at for at, scope in enumerate(scopes) if scope.cancel_called and at not in gone]
    assert gone == [1, 0, 2, 5, 6]
    with trio.move_on_after(5) as waits:
        await places.take(record(99, "10.0.0.1"))
    assert waits.cancelled_caught
    places.leave(held[3])
    await places.take(record(99, "10.0.0.1"))


async def test_a_refused_peer_is_a_stranger(autojump_clock: MockClock) -> None:
    """A peer could hold all places by asking for what it may not have: the agent waits while the refusal is sent."""
    places = Places(2)
    refused = record(0, "10.0.0.1", channel="authenticated")
    scope = await places.take(refused)
    await places.take(record(1, "10.0.0.1", SocketRole.INITIATOR))
    with trio.move_on_after(5) as waits:
        await places.take(record(2, "10.0.0.2"))
    assert waits.cancelled_caught
    refused.refusal = Denied("not for this peer")
    await places.take(record(2, "10.0.0.2"))
    assert scope.cancel_called


async def test_fewer_places_while_running(autojump_clock: MockClock) -> None:
    """Strangers beyond the new number lose their places to the next newcomer; connecting sockets keep theirs."""
    places = Places(4)
    held = [record(0, "10.0.0.1", SocketRole.INITIATOR), record(1, "10.0.0.1"), record(2, "10.0.0.2"), record(3, "10.0.0.3")]
    scopes = [await places.take(each) for each in held]
    places.most = 2
    await places.take(record(4, "10.0.0.4"))
    assert [scope.cancel_called for scope in scopes] == [False, True, True, True]


async def test_a_peer_that_waits_for_its_refusal_loses_its_place(kernel: FakeKernel) -> None:
    """The log and the application get the refusal, not the want of places."""
    with connection() as (near, far), connection() as (last, _), structlog.testing.capture_logs() as lines:
        async with stage(kernel, narrow(2)) as running:
            running.offer(far, role=1, identity="server")
            running.offer(near, service="x")
            await running.done()  # of the side that asked; the other side waits for its end
            running.offer(last, timeout=300)
            running.offer(last, timeout=300)
            await running.done(2)
    (line,) = [line for line in lines if line["event"] == "handshake failed" and line["role"] == "responder"]
    assert line["why"].startswith("the peer asks for the service")
    assert kernel.errors()[:2] == [errno.EACCES, errno.EACCES]


async def test_what_the_kernel_held_back_is_asked_for_at_once(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a connecting socket's handshake makes room; nothing announces that."""
    monkeypatch.setattr(agents, "_LOOK", 300.0)
    kernel.at_most = 1
    with connection() as (one, far_one), connection() as (two, far_two):
        async with stage(kernel, narrow(2)) as running:
            running.offer(one)
            running.offer(two)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert kernel.taken == 1
            for number, far in enumerate((far_one, far_two), 1):
                far.shutdown(socket.SHUT_RDWR)
                await running.done(number)
    assert kernel.errors() == [errno.EKEYREJECTED] * 2
    assert set(kernel.places) == {2}
