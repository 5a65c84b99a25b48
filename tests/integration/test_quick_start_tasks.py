"""A connection that begins without a task and goes on in one looks like one that begins in a task."""

from __future__ import annotations

import dataclasses
import errno
import socket
import struct
from typing import Any

import pytest
import trio
from harness.quick_start import Rig, run, same, until

from stcp_proxy.errors import KeyRevoked
from stcp_proxy.net import dial
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.session import peer_leg
from stcp_proxy.session.peer_leg import PeerLeg
from stcp_proxy.tunnel import quick_start
from stcp_proxy.upstream.targets import Targets


def test_moment_that_is_over() -> None:
    """Each wait without a task ends at once."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(quick_start, "MOMENT", 0.0)
        before = rig.seen.tasks["connect"]
        held: list[Any] = []
        rig.patch.setattr(rig.listen.legs, "_serve", lambda *opened: held.append(opened))
        client = rig.dial(b"words")
        await until(lambda: held)
        await until(lambda: rig.seen.tasks["connect"] == before + 1)
        rig.listen._admit_kept(*held[0])
        await rig.finish(client)

    assert same(case, listen_tasks=0, connect_tasks=1).answers == [b"words"] * 2


def test_target_that_refuses() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.patch.setattr(dial, "_connect_now", lambda *_: errno.ECONNREFUSED)
        await rig.finish(rig.dial(b"words"))

    seen = same(case, listen_tasks=1, connect_tasks=0)
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

    seen = same(case, listen_tasks=1, connect_tasks=0, listen=limit)
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

    assert same(case, listen_tasks=1, connect_tasks=1).answers == [b"words"] * 2


def test_peer_that_has_left() -> None:
    """BYE is on its way when the next connection takes the leg."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        client = rig.dial(b"words")
        rig.listen.legs._leave_all()
        await rig.finish(client)

    assert same(case, listen_tasks=0, connect_tasks=1).answers == [b"words"] * 2


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

    seen = same(case, listen_tasks=0, connect_tasks=1, compiled=True)
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

    assert same(case, listen_tasks=0, connect_tasks=1).answers == [b"words"] * 2


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

    assert same(case, listen_tasks=0, connect_tasks=1).answers[1] == "ECONNRESET"


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

    seen = same(case, listen_tasks=0, connect_tasks=0)
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

    seen = same(case, listen_tasks=0, connect_tasks=0, connect={"max_connections": 1})
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

    assert same(case, listen_tasks=1, connect_tasks=1).answers == [b"words"] * 2


def test_reload_that_stops_to_keep_legs() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        rig.connect.replace(dataclasses.replace(rig.connect.plan, keep=None), rig.connect.engine)
        await rig.ask()
        await rig.settle()

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [b"words"] * 2


def test_kernel_without_memory_to_watch_one_socket_more() -> None:
    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()
        watch = PumpEngine.watch

        def refuse(engine: PumpEngine, sock: socket.socket, watcher: Any, **options: Any) -> bool:
            if isinstance(watcher, quick_start.QuickStart):
                raise OSError(errno.ENOSPC, "no room")
            return watch(engine, sock, watcher, **options)

        rig.patch.setattr(PumpEngine, "watch", refuse)
        await rig.ask()

    assert same(case, listen_tasks=0, connect_tasks=1).answers == [b"words"] * 2
