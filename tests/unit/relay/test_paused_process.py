"""A deadline that passed while the process was paused is looked at again after the sockets were."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd, RelayLimits
from stcp_proxy.relay.fast_path import compiled
from stcp_proxy.relay.pump import PumpEngine

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
IDLE = 60.0


class Paused:
    """One connection whose engine has not run for twice its idle timeout."""

    def __init__(self, *, fast: bool) -> None:
        self.engine = PumpEngine(compiled=fast)
        self._guest = os.eventfd(0)
        self.engine.start_driven(self._guest)
        self.app, plain = socket.socketpair()
        wire, self.peer = socket.socketpair()
        for sock in (self.app, plain, wire, self.peer):
            sock.setblocking(False)
        self.ends: list[RelayEnd] = []
        keys = DirectionKey(TO_WIRE, 0), DirectionKey(FROM_WIRE, 0)
        self.relay = self.engine.adopt(Handover(plain, wire, *keys, limits=RelayLimits(idle=IDLE)), self.ends.append)
        self.sealer, self.opener = Sealer(FROM_WIRE), Opener(TO_WIRE)
        self.turns()

    def turns(self) -> None:
        for _ in range(8):
            self.engine.turn(0)

    def wake(self) -> None:
        """The deadline is due, and no event has been served since the pause began."""
        self.engine.now += 2 * IDLE
        self.relay.on_deadline()

    def stall(self, sender: socket.socket, data: Callable[[], bytes]) -> None:
        """Send until neither the engine nor its sockets take more."""
        while True:
            try:
                sender.send(data())
            except BlockingIOError:
                self.turns()
                try:
                    sender.send(data())
                except BlockingIOError:
                    return

    def close(self) -> None:
        self.engine.close()
        os.close(self._guest)
        self.app.close()
        self.peer.close()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not compiled(), reason="the fast path is not built"))])
def paused(request: pytest.FixtureRequest) -> Iterator[Paused]:
    one = Paused(fast=request.param)
    yield one
    one.close()


def test_a_silent_connection_ends(paused: Paused) -> None:
    paused.wake()
    paused.peer.close()
    paused.turns()
    assert [end.reason for end in paused.ends] == [EndReason.IDLE_TIMEOUT]


def test_bytes_of_the_application_count(paused: Paused) -> None:
    paused.app.send(b"words")
    paused.wake()
    paused.turns()
    opened = paused.opener.open(paused.peer.recv(100))
    assert opened is not None
    assert (opened[2], paused.ends) == (b"words", [])


def test_bytes_of_the_peer_count(paused: Paused) -> None:
    paused.peer.send(paused.sealer.seal(FrameType.DATA, b"words"))
    paused.wake()
    paused.turns()
    assert (paused.app.recv(100), paused.ends) == (b"words", [])


def test_a_reader_that_reads_again_counts(paused: Paused) -> None:
    paused.stall(paused.app, lambda: bytes(60_000))
    while True:
        try:
            paused.peer.recv(1 << 20)
        except BlockingIOError:
            break
    paused.wake()
    paused.turns()
    assert paused.ends == []
    assert paused.peer.recv(100)


def test_a_reader_that_stands_still_does_not_count(paused: Paused) -> None:
    """What it keeps back, the application's bytes, is no news."""
    paused.stall(paused.app, lambda: bytes(60_000))
    paused.wake()
    paused.peer.close()
    paused.turns()
    assert [end.reason for end in paused.ends] == [EndReason.IDLE_TIMEOUT]
