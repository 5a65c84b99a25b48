"""Admission: who gets in, who waits, who gives up a place. The clock jumps."""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stcp_proxy.config import Mode
from stcp_proxy.relay.engine import EndReason, RelayEnd
from stcp_proxy.tunnel.descriptors import Descriptors
from stcp_proxy.tunnel.lobby import GRACE

from .rig import FIRST, FakeEngine, FakeSession, handed_over, make_plan, of, serving

LIMIT = "limit reached: new connections wait"
EVICTED = "limit reached: strangers lose their places"
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


async def test_callers_that_are_silent_after_their_first_message_give_up_their_places(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """After a second, oldest first, one for each newcomer: the first message may be a replay."""
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


@pytest.mark.parametrize(("channel", "blamed"), [("", 2), ("a channel", 0)])
async def test_a_session_that_loses_its_place_speaks_against_its_host(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, channel: str, blamed: int
) -> None:
    """Unless its handshake was complete: it may be a connection made ahead."""

    async def silent(session: FakeSession) -> None:
        session.connection.channel = channel
        await trio.sleep_forever()

    async with serving(make_plan(handshakes=2), monkeypatch) as rig:
        rig.behave, hosts = silent, list[str]()
        assert rig.tunnel.live.lobby is not None
        monkeypatch.setattr(rig.tunnel.live.lobby, "blame", hosts.append)
        rig.listener.add(*[None] * 4)
        await trio.sleep(1.5)
        assert len(rig.began) == 4
        assert len(hosts) == blamed


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


async def test_silent_callers_give_up_their_places(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    """As soon as places are short, oldest first, each with a TCP RST; a single line tells of many."""
    async with serving(make_plan(handshakes=4), monkeypatch) as rig:
        rig.listener.says = b""
        rig.listener.add(*[None] * 40)
        await trio.sleep(GRACE / 2)
        assert len(rig.listener.callers) == rig.tunnel.proving == 4
        await trio.sleep(1)
        assert len(rig.listener.callers) == 40
        assert [_is_open(caller) for caller in rig.listener.callers] == [False] * 36 + [True] * 4
        assert (rig.began, rig.tunnel.proving) == ([], 4)
        rig.listener.says = FIRST
        rig.listener.add(None)
        await trio.sleep(GRACE)
        assert len(rig.began) == 1
    assert len(of(logs, EVICTED, limit="max_handshakes")) == 1
    assert len(of(logs, "connection refused", reason="over_limit")) == 37
    assert rig.tunnel.ledger.refused_by_reason["over_limit"] == 37
    assert rig.tunnel.ledger.limits["max_handshakes"] >= 37


async def test_a_connect_tunnel_gets_a_place_from_a_stranger_of_another_tunnel(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """Descriptors are shared by all tunnels, and the callers of a connect tunnel are this host's own applications."""
    descriptors = Descriptors()
    descriptors.places = 3
    async with (
        serving(make_plan(), monkeypatch, descriptors) as listen,
        serving(make_plan(Mode.CONNECT), monkeypatch, descriptors) as connect,
    ):
        listen.listener.says = b""
        listen.listener.add(*[None] * 3)
        await trio.sleep(GRACE)
        assert (listen.tunnel.proving, descriptors.used) == (3, 3)
        connect.listener.add(None, None)
        await trio.sleep(GRACE)
        assert len(connect.began) == 2
        assert (listen.tunnel.proving, descriptors.used) == (1, 3)


async def test_out_of_descriptors_a_stranger_gives_up_its_place(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    """The system's limit counts as the file's."""
    async with serving(make_plan(), monkeypatch) as rig:
        rig.listener.says = b""
        rig.listener.add(None, None)
        await trio.sleep(1)
        assert rig.tunnel.proving == 2
        rig.listener.add(OSError(errno.EMFILE, os.strerror(errno.EMFILE)), None)
        await trio.sleep(0.01)
        assert rig.tunnel.proving == 0
        assert [_is_open(caller) for caller in rig.listener.callers] == [False, False]


async def test_a_stop_gives_strangers_a_second(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any) -> None:
    """One that speaks within it is served; the others do not delay the stop."""
    async with serving(make_plan(), monkeypatch) as rig:
        rig.behave = handed_over
        rig.listener.says = b""
        rig.listener.add(*[None] * 3)
        await trio.sleep(0.1)
        await rig.tunnel.release()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.tunnel.live.dismiss_unauthenticated)
            await trio.sleep(0.5)
            rig.listener.callers[1].send(FIRST)
        assert trio.current_time() - rig.start < 1.2
        assert len(rig.began) == len(rig.tunnel.live) == 1
        assert len(of(logs, "connection refused", reason="shutting_down")) == 2
        rig.listener.close()


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


def _is_open(caller: socket.socket) -> bool:
    """Whether the tunnel has not closed a connection."""
    try:
        return bool(caller.recv(1, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


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
