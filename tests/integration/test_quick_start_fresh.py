"""A connection on a new wire leg: its handshake runs without a task, and looks like one in a task."""

from __future__ import annotations

import dataclasses
import socket

import pytest
import trio
from harness.quick_start import ENDS, Rig, same, until

from stcp_proxy.config import KeyAuth, Mode
from stcp_proxy.handshake.exchange import Channel
from stcp_proxy.keys import PrivateKey
from stcp_proxy.protocol.handshake import Credentials, Initiator
from stcp_proxy.protocol.noise import KeyPair
from stcp_proxy.protocol.wire import FrameType, Role, Suite
from stcp_proxy.tunnel import quick_start

FRESH = {"listen": {"keep": None}, "connect": {"keep": None}}
STRANGER = PrivateKey.generate()


@pytest.mark.parametrize("compiled", [True, False])
def test_first_contact(compiled: bool) -> None:
    async def case(rig: Rig) -> None:
        for number in range(3):
            await rig.ask(b"words %d" % number)
        await rig.ask(b"")

    seen = same(case, listen_tasks=0, connect_tasks=0, compiled=compiled, **FRESH)
    assert seen.answers == [b"words 0", b"words 1", b"words 2", b""]
    assert seen.counts[0]["steps"][0] == seen.counts[1]["steps"][0] == {"ok": 4}


def test_several_at_a_time() -> None:
    """More than the listener accepts in one batch of the engine."""

    async def case(rig: Rig) -> None:
        clients = [rig.dial(bytes([number])) for number in range(40)]
        for client in clients:
            await rig.finish(client)
        await rig.settle()

    seen = same(case, listen_tasks=0, connect_tasks=0, **FRESH)
    assert seen.answers == [bytes([number]) for number in range(40)]


def test_peer_with_an_unknown_key() -> None:
    """The failed handshake is counted, logged and held against its host both ways."""

    async def case(rig: Rig) -> None:
        for _ in range(6):
            await rig.ask()
        assert rig.listen.live.lobby is not None
        assert rig.listen.live.lobby._failures.is_empty("127.0.0.1", trio.current_time())

    stranger = KeyAuth(STRANGER, {ENDS[Mode.LISTEN].public: "peer"})
    seen = same(case, listen_tasks=0, connect_tasks=0, listen={"keep": None}, connect={"keep": None, "auth": stranger})
    assert seen.answers == ["ECONNRESET"] * 6
    assert {line["reason"] for line in seen.lines if line["tunnel"] == "listen" and "reason" in line} == {"unknown_peer"}


def test_peer_with_two_keys_of_which_the_first_is_unknown() -> None:
    """The second handshake goes on a second connection."""

    async def case(rig: Rig) -> None:
        await rig.ask()

    auth = KeyAuth(STRANGER, {ENDS[Mode.LISTEN].public: "peer"}, (ENDS[Mode.CONNECT],))
    seen = same(case, listen_tasks=0, connect_tasks=0, listen={"keep": None}, connect={"keep": None, "auth": auth})
    assert seen.answers == [b"words"]
    assert [line["why"] for line in seen.lines if line["event"] == "handshake retried with the next key"]


def test_moment_that_is_over() -> None:
    """Each wait without a task ends at once: the session goes on in a task from message 1 or 2."""

    async def case(rig: Rig) -> None:
        rig.patch.setattr(quick_start, "MOMENT", -1.0)
        for _ in range(3):
            await rig.ask()

    assert same(case, listen_tasks=3, connect_tasks=3, **FRESH).answers == [b"words"] * 3


def test_first_frame_that_trickles() -> None:
    """It gets a task, which a newcomer that needs its place can end."""

    async def case(rig: Rig) -> None:
        client = socket.create_connection(rig.listen.listeners[0].getsockname())
        own, peer = KeyPair(ENDS[Mode.CONNECT].secret), ENDS[Mode.LISTEN].public.raw
        initiator = Initiator(Suite.HYBRID_KEYS, Credentials(own), remote_static=peer)
        client.sendall(initiator.message_1())
        client.setblocking(False)
        await until(lambda: rig.listen.live.unauthenticated)
        with trio.socket.from_stdlib_socket(client) as ours:
            established = None
            while established is None:
                established = initiator.receive(await ours.recv(65536))
            await ours.send(Channel(Role.INITIATOR, established).seal(FrameType.OPEN, b"")[:1])
            with trio.fail_after(quick_start.MOMENT / 2):
                await until(lambda: rig.seen.tasks["listen"] == 1)
            rig.listen.live.unauthenticated.give_up_oldest()
            with trio.fail_after(20):
                assert await ours.recv(1) == b""

    seen = same(case, listen_tasks=1, connect_tasks=0, **FRESH)
    assert [line["reason"] for line in seen.lines if line["event"] == "connection refused"] == ["over_limit"]


def test_handshake_that_is_not_answered() -> None:
    """The deadline is the same with and without a task."""

    async def case(rig: Rig) -> None:
        rig.connect.replace(dataclasses.replace(rig.connect.plan, handshake_timeout=0.3), rig.connect.engine)
        rig.patch.setattr(quick_start, "MOMENT", 0.1)
        silent: list[socket.socket] = []
        rig.patch.setattr(rig.listen, "_start", lambda _connection, sock, *_: silent.append(sock))
        await rig.finish(rig.dial(b"words"))
        silent[0].close()

    seen = same(case, listen_tasks=0, connect_tasks=1, **FRESH)
    assert [line["reason"] for line in seen.lines if line["event"] == "connection refused"] == ["handshake_timeout"]
