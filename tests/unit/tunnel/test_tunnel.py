"""The connections of a tunnel: how each ends, and the log line of each end. The clock jumps."""

from __future__ import annotations

import dataclasses
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stcp_proxy.config import KeyAuth
from stcp_proxy.errors import Code, LogClass, TargetRefused
from stcp_proxy.handshake.trust import Peer
from stcp_proxy.keys import PublicKey
from stcp_proxy.protocol.opening import Opening
from stcp_proxy.relay.engine import EndReason, RelayEnd

from .rig import IDENTITY, PEER, FakeSession, forever, handed_over, make_plan, of, serving


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


class ProvedSession:
    """A session on a kept leg, whose peer proved its key before."""

    def __init__(self, *args: Any) -> None:
        self.sock, self.connection, self.live = args[4:7]

    async def run(self) -> None:
        self.connection.proved(Peer("peer", "peer", PEER.raw, IDENTITY.public.raw))
        self.live.proved(self.connection)
        try:
            await trio.sleep_forever()
        finally:
            self.sock.close()


@pytest.mark.parametrize("keeps", [True, False])
async def test_an_open_on_a_kept_leg_comes_together_with_a_reload(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logs: Any, keeps: bool
) -> None:
    """The session begins after the reload, and its peer may have been revoked by it."""
    monkeypatch.setattr("stcp_proxy.tunnel.tunnel.ListenSession", ProvedSession)
    plan = make_plan()
    other = PublicKey(bytes(range(2, 34)))
    ours, theirs = socket.socketpair()
    leg: Any = SimpleNamespace(name="10.0.0.1:5", stream=SimpleNamespace(socket=ours))
    async with serving(plan, monkeypatch) as rig, trio.open_nursery() as connections:
        rig.tunnel._admit_kept(leg, Opening(), connections)
        peers = {PEER: "peer", other: "other"} if keeps else {other: "other"}
        rig.tunnel.replace(dataclasses.replace(plan, auth=KeyAuth(IDENTITY, peers)), rig.tunnel.engine)
        await trio.sleep(1)
        assert len(rig.tunnel.live) == keeps
        assert len(of(logs, "connection refused", reason="key_revoked")) == (not keeps)
        connections.cancel_scope.cancel()
    theirs.close()
