"""A turn of one connection is bounded in frames, whatever the peer sends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from stcp_proxy.protocol.frames import Sealer, begins_with_frame
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import DirectionKey, EndReason, Handover, RelayEnd
from stcp_proxy.relay.fast_path import compiled
from stcp_proxy.relay.pump import PumpEngine
from stcp_proxy.relay.wire_to_plain import FRAMES_PER_TURN

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
STEPS_PER_TURN = 2
"""`PumpEngine.turn` serves events, and then what was queued."""


class Flooded:
    """One connection whose peer sends what the test makes; its sockets take it whole."""

    def __init__(self, *, fast: bool) -> None:
        self.engine = PumpEngine(compiled=fast)
        self._guest = os.eventfd(0)
        self.engine.start_driven(self._guest)
        self.sealer = Sealer(FROM_WIRE)
        self.ends: list[RelayEnd] = []
        self.app, plain = socket.socketpair()
        wire, self.peer = socket.socketpair()
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for sock in (self.app, plain, wire, self.peer):
            sock.setblocking(False)
        self._handover = Handover(plain, wire, DirectionKey(TO_WIRE, 0), DirectionKey(FROM_WIRE, 0))

    def adopt(self, wire_bytes: bytes = b"") -> None:
        handover = self._handover
        handover = Handover(handover.plain, handover.wire, handover.send, handover.receive, wire_bytes)
        self.relay = self.engine.adopt(handover, self.ends.append)

    def opened_in_turn(self) -> int:
        """Frames that one turn opens."""
        before = self.relay._opener.counter
        self.engine.turn(0)
        return self.relay._opener.counter - before

    def turns(self) -> int:
        """Let it do everything; returns the most frames of one turn."""
        most = 0
        while opened := self.opened_in_turn():
            most = max(most, opened)
        return most

    def close(self) -> None:
        self.engine.close()
        os.close(self._guest)
        self.app.close()
        self.peer.close()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.skipif(not compiled(), reason="the fast path is not built"))])
def flooded(request: pytest.FixtureRequest) -> Iterator[Flooded]:
    one = Flooded(fast=request.param)
    yield one
    one.close()


def flood(sealer: Sealer, content: Callable[[int], bytes], count: int = 3000) -> bytes:
    return b"".join(sealer.seal(FrameType.DATA, content(number)) for number in range(count))


CONTENTS: dict[str, Callable[[int], bytes]] = {
    "empty": lambda number: b"",
    "one byte": lambda number: b"x",
    "mixed": lambda number: b"x" * (number % 3),
    "small": lambda number: b"x" * 40,
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_flood_of_frames_takes_many_turns_and_loses_nothing(flooded: Flooded, content: str) -> None:
    flooded.adopt()
    frames = flood(flooded.sealer, CONTENTS[content]) + flooded.sealer.seal(FrameType.DATA, b"the end")
    assert flooded.peer.send(frames) == len(frames)
    assert flooded.turns() <= STEPS_PER_TURN * FRAMES_PER_TURN
    expected = b"".join(map(CONTENTS[content], range(3000))) + b"the end"
    assert flooded.app.recv(1 << 20) == expected
    assert flooded.relay.counts() == (0, len(expected))


def test_a_flood_that_came_with_the_handover(flooded: Flooded) -> None:
    flooded.adopt(flood(flooded.sealer, lambda number: b"x"))
    assert flooded.relay._opener.counter <= FRAMES_PER_TURN
    assert flooded.turns() <= STEPS_PER_TURN * FRAMES_PER_TURN
    assert flooded.app.recv(1 << 20) == b"x" * 3000


def test_bytes_behind_a_flood_are_read(flooded: Flooded) -> None:
    """Nothing tells of them again: epoll reported them while frames waited."""
    flooded.adopt()
    flooded.peer.send(flood(flooded.sealer, lambda number: b""))
    flooded.opened_in_turn()
    flooded.peer.send(flooded.sealer.seal(FrameType.DATA, b"behind"))
    flooded.turns()
    assert flooded.app.recv(100) == b"behind"


@pytest.mark.parametrize("count", [FRAMES_PER_TURN - 1, FRAMES_PER_TURN, FRAMES_PER_TURN + 1, 2 * FRAMES_PER_TURN])
@pytest.mark.parametrize("content", [b"", b"x"])
def test_an_end_behind_a_full_turn(flooded: Flooded, count: int, content: bytes) -> None:
    flooded.adopt()
    frames = flood(flooded.sealer, lambda number: content, count)
    flooded.peer.send(frames + flooded.sealer.seal(FrameType.FIN) + flooded.sealer.seal(FrameType.RESET, b"\x00\x01why"))
    flooded.turns()
    assert flooded.app.recv(1 << 20) == content * count
    assert [end.reason for end in flooded.ends] == [EndReason.PEER_RESET]


def test_a_frame_that_is_not_authentic_behind_a_full_turn(flooded: Flooded) -> None:
    flooded.adopt()
    frames = flood(flooded.sealer, lambda number: b"x", FRAMES_PER_TURN + 10)
    flooded.peer.send(frames[:-1] + bytes([frames[-1] ^ 1]))
    flooded.turns()
    assert flooded.app.recv(1 << 20) == b"x" * (FRAMES_PER_TURN + 9)
    assert [end.reason for end in flooded.ends] == [EndReason.BAD_FRAME]


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_begins_with_frame(size: int) -> None:
    frame = Sealer(FROM_WIRE).seal(FrameType.DATA, bytes(size))
    assert begins_with_frame(frame)
    assert begins_with_frame(frame + b"more")
    assert not any(begins_with_frame(frame[:cut]) for cut in range(len(frame)))
