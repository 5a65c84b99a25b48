"""Connections of an engine that a test drives by hand."""

from __future__ import annotations

import math
import os
import socket

import pytest

from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.relay import fast_path
from stcp_proxy.relay.engine import DirectionKey, Handover, RelayEnd
from stcp_proxy.relay.pump import PumpEngine

TO_WIRE, FROM_WIRE = Secret(bytes(range(32))), Secret(bytes(range(1, 33)))
needs_lane = pytest.mark.skipif(
    not fast_path.compiled(), reason="the fast path in C was not built: gcc or Python's headers are missing"
)


class Bench:
    """One connection of an engine that is driven by hand: nothing happens but in `turn`."""

    def __init__(self, *, compiled: bool, counter: int = 0) -> None:
        self.engine = PumpEngine(compiled=compiled)
        self._guest = os.eventfd(0)
        self.engine.start_driven(self._guest)
        self.connect(counter)

    def connect(self, counter: int) -> None:
        """Have the engine adopt a connection."""
        self.app, plain = socket.socketpair()
        wire_leg, self.peer = socket.socketpair()
        for sock in (self.app, plain, wire_leg, self.peer):
            sock.setblocking(False)
        self.ends: list[RelayEnd] = []
        keys = DirectionKey(TO_WIRE, counter), DirectionKey(FROM_WIRE, counter)
        self.relay = self.engine.adopt(Handover(plain, wire_leg, *keys), self.ends.append)
        self.sealer, self.opener = Sealer(FROM_WIRE, counter), Opener(TO_WIRE, counter)

    def turn(self) -> None:
        """Let the engine do everything that it can do now. Whether a small read was a moment ago would depend on the machine."""
        for _ in range(8):
            self.engine._small.small_at = -math.inf
            self.engine.turn(0)

    def carried(self) -> tuple[int, bytes]:
        """Type and plaintext of the first frame that has come out at the peer."""
        opened = self.opener.open(read(self.peer))
        assert opened is not None
        return opened[1:]

    def delivered(self) -> bytes:
        """What has come out at the application."""
        return read(self.app)

    def close(self) -> None:
        self.engine.close()
        os.close(self._guest)
        self.app.close()
        self.peer.close()


def read(sock: socket.socket) -> bytes:
    got = b""
    try:
        while part := sock.recv(1 << 20):
            got += part
    except (BlockingIOError, ConnectionResetError):
        pass
    return got


class Several:
    """Connections of one engine whose events come in one batch."""

    def __init__(self, first: Bench, count: int) -> None:
        self.benches = [first]
        for _ in range(count - 1):
            one = Bench.__new__(Bench)
            one.engine = first.engine
            one.connect(0)
            self.benches.append(one)
        first.turn()

    def close(self) -> None:
        for one in self.benches[1:]:
            one.app.close()
            one.peer.close()
