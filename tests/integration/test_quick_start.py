"""A connection that begins without a task looks like one that begins in a task: same answers, log lines and counts.

Here it comes to its relay without one; test_quick_start_tasks.py has the ways into a task.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest
from harness.quick_start import PORT, Rig, look_around, run, same, until

from stcp_proxy.config import HandOn
from stcp_proxy.net import dial
from stcp_proxy.session import peer_leg
from stcp_proxy.session.peer_leg import PeerLeg


@pytest.mark.parametrize("compiled", [True, False])
def test_client_that_speaks_first(compiled: bool) -> None:
    async def case(rig: Rig) -> None:
        for number in range(5):
            await rig.ask(b"words %d" % number)
            await rig.rest()

    seen = same(case, listen_tasks=0, connect_tasks=0, compiled=compiled)
    assert seen.answers == seen.said == [b"words %d" % number for number in range(5)]


def test_kernel_engine_whose_module_refuses_every_connection() -> None:
    """The engine beside it watches the sockets, and carries the connections."""

    async def case(rig: Rig) -> None:
        for _ in range(5):
            await rig.ask(b"words")
            await rig.rest()

    seen = same(case, listen_tasks=0, connect_tasks=0, module=False)
    assert seen.answers == [b"words"] * 5
    ends = [line for line in seen.lines if line["event"] == "connection closed"]
    assert {line["why_engine"] for line in ends} == {"the module stcp refused it: Operation not supported"}


def test_server_that_speaks_first() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(3):
            await rig.ask(b"")
            await rig.rest()

    assert same(case, listen_tasks=0, connect_tasks=0, greeting=b"welcome").answers == [b"welcome"] * 3


def test_several_at_a_time() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(2):
            clients = [rig.dial(bytes([number])) for number in range(8)]
            for client in clients:
                await rig.finish(client)
            await rig.rest(8)

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [bytes([number]) for number in range(8)] * 2


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

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [b"words"] * 2


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

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [b"words", b""]


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

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [b"words"] * 2


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
        rig.listen.legs._leave(kept)
        await rig.finish(client)

    seen = same(case, listen_tasks=0, connect_tasks=0)
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

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [b"words"] * 3


def test_proxy_header_to_the_target() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(2):
            await rig.ask()
            await rig.rest()
        rig.target.said[:] = [PORT.sub("*", said.decode()).encode() for said in rig.target.said]
        rig.seen.answers[:] = [PORT.sub("*", got.decode()).encode() for got in rig.seen.answers if isinstance(got, bytes)]

    seen = same(case, listen_tasks=0, connect_tasks=0, listen={"hand_on": HandOn(proxy_protocol="v1")})
    assert seen.said[1].startswith(b"PROXY TCP4")


def test_target_that_answers_in_a_moment() -> None:
    """`connect` says that it is in progress, and a moment later the socket is writable."""

    async def case(rig: Rig) -> None:
        await rig.ask()
        await rig.rest()

        def later(sock: socket.socket, sockaddr: Any, own: Any) -> int:
            assert sock.connect_ex(sockaddr) == errno.EINPROGRESS
            return errno.EALREADY

        rig.patch.setattr(dial, "_connect_now", later)
        await rig.ask()

    assert same(case, listen_tasks=0, connect_tasks=0).answers == [b"words"] * 2


def test_maximum_lifetime() -> None:
    async def case(rig: Rig) -> None:
        for _ in range(2):
            await rig.ask()
            await rig.rest()
        client = rig.dial(b"")
        await until(lambda: rig.connect.live.lifetimes)
        await rig.finish(client)

    same(case, listen_tasks=0, connect_tasks=0, connect={"max_lifetime": 0.5})
