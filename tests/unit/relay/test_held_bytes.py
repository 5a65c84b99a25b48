"""Stalled readers: what they hold is counted, bounded, and given back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from stcp_proxy.protocol.frames import Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, FrameType
from stcp_proxy.relay import held_bytes
from stcp_proxy.relay.duplex import Duplex
from stcp_proxy.relay.engine import DirectionKey, Handover, RelayEnd
from stcp_proxy.relay.fast_path import compiled
from stcp_proxy.relay.held_bytes import SHORT_READ, HeldBytes
from stcp_proxy.relay.pump import PumpEngine

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
LIMIT = 200_000
FRAME_ROOM = SHORT_READ + 4096
"""A short read of plaintext, sealed."""


class Stalled:
    """Connections of one engine whose readers on both sides never read."""

    def __init__(self, *, fast: bool) -> None:
        self.engine = PumpEngine(compiled=fast, held_limit=LIMIT)
        self._guest = os.eventfd(0)
        self.engine.start_driven(self._guest)
        self._sockets: list[socket.socket] = []
        self.ends: list[RelayEnd] = []
        self.relays: list[Duplex] = []

    def add(self, frame: int = MAX_PLAINTEXT) -> None:
        """One connection more, with more in both senders' sockets than the readers' take.

        Args:
            frame: bytes of plaintext in each frame of the peer.
        """
        app, plain = socket.socketpair()
        wire, peer = socket.socketpair()
        for sock in (app, plain, wire, peer):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for sock in (plain, wire):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._sockets += (app, peer)
        keys = DirectionKey(TO_WIRE, 0), DirectionKey(FROM_WIRE, 0)
        self.relays.append(self.engine.adopt(Handover(plain, wire, *keys), self.ends.append))
        app.send(bytes(150_000))
        sealer = Sealer(FROM_WIRE)
        frames = b"".join(sealer.seal(FrameType.DATA, bytes(frame)) for _ in range(2 * MAX_PLAINTEXT // frame))
        peer.send(frames)
        for _ in range(8):
            self.engine.turn(0)

    def hang_up(self) -> None:
        for sock in self._sockets:
            sock.close()
        for _ in range(8):
            self.engine.turn(0)

    def close(self) -> None:
        self.engine.close()
        os.close(self._guest)
        for sock in self._sockets:
            sock.close()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not compiled(), reason="the fast path is not built"))])
def stalled(request: pytest.FixtureRequest) -> Iterator[Stalled]:
    one = Stalled(fast=request.param)
    yield one
    one.close()


def held(relay: Duplex) -> int:
    return len(relay.wire_left or b"") + len(relay.plain_left or b"")


def test_beyond_the_limit_each_further_connection_holds_little(stalled: Stalled) -> None:
    stalled.add()
    assert held(stalled.relays[0]) > 2 * FRAME_ROOM, "reads are long while memory is not short"
    while not stalled.engine.held.crowded:
        stalled.add()
    before = len(stalled.relays)
    for _ in range(10):
        stalled.add()
    assert all(0 < held(relay) <= 2 * FRAME_ROOM for relay in stalled.relays[before:])
    assert stalled.engine.held.total == sum(map(held, stalled.relays))


def test_ends_give_back_and_reads_are_long_again(stalled: Stalled) -> None:
    for _ in range(5):
        stalled.add()
    assert stalled.engine.read_size == SHORT_READ
    stalled.hang_up()
    assert len(stalled.ends) == 5
    assert stalled.engine.held.total == 0
    assert stalled.engine.read_size == stalled.engine.chunk


def test_free_memory_is_returned_once_for_each_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[None] = []
    monkeypatch.setattr(held_bytes, "return_memory", lambda: returned.append(None))
    counted = HeldBytes()
    for _ in range(2):
        counted.change(40 << 20)
        counted.change(-(20 << 20))
        assert len(returned) == _
        counted.change(-(20 << 20))
        assert len(returned) == _ + 1
    for _ in range(100):
        counted.change(1 << 20)
        counted.change(-1 << 20)
    assert len(returned) == 2, "small amounts are not worth it"


def test_the_c_library_takes_the_call() -> None:
    held_bytes.return_memory()


def test_received_frames_behind_a_stalled_reader_are_counted(stalled: Stalled) -> None:
    """A turn opens a bounded number of frames: of tiny ones most of a read waits unopened."""
    stalled.add(frame=100)
    (relay,) = stalled.relays
    assert relay.plain_left is not None
    assert len(relay.partial) > 50_000
    assert stalled.engine.held.total == len(relay.wire_left or b"") + len(relay.plain_left) + len(relay.partial)
    stalled.hang_up()
    assert stalled.engine.held.total == 0
