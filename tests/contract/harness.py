"""The test's own peer, and rigs that put an engine between two sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from stcp_proxy.protocol.frames import Opener, Sealer
from stcp_proxy.protocol.secret import Secret
from stcp_proxy.protocol.wire import MAX_PLAINTEXT, FrameType
from stcp_proxy.relay.engine import DirectionKey, Engine, Handover, Relay, RelayEnd, RelayLimits, WireLeg

from .legs import (
    PATIENCE,
    Ending,
    read_exactly,
    read_to_end,
    tcp_pair,
)

KEY_OUT: Final = Secret(bytes(range(32)))
"""Key of the direction from the engine under test to the wire."""
KEY_IN: Final = Secret(bytes(range(32, 64)))
"""Key of the direction from the wire to the engine under test."""


# -- the end of a relay --------------------------------------------------------------------------------------------------


class EndBox:
    """Takes `on_end` and knows how often it was called."""

    def __init__(self) -> None:
        self._called = threading.Event()
        self.ends: list[RelayEnd] = []
        self.at: float | None = None

    def __call__(self, end: RelayEnd) -> None:
        self.ends.append(end)
        self.at = time.monotonic()
        self._called.set()

    def wait(self, patience: float = PATIENCE) -> RelayEnd:
        assert self._called.wait(patience), "on_end is not called"
        assert len(self.ends) == 1, "on_end is called more than once"
        return self.ends[0]

    @property
    def called(self) -> bool:
        return self._called.is_set()


# -- the test's own peer -------------------------------------------------------------------------------------------------


@dataclass
class Peer:
    """The other end of the wire leg, played by the test.

    Attributes:
        sock: the wire.
        sealer: writes frames to the engine.
        opener: reads the engine's frames.
        buffer: read and not yet opened.
    """

    sock: socket.socket
    sealer: Sealer
    opener: Opener
    buffer: bytearray = field(default_factory=bytearray)

    def send(self, kind: FrameType, content: bytes = b"") -> None:
        self.sock.sendall(self.sealer.seal(kind, content))

    def send_data(self, data: bytes) -> None:
        self.send(FrameType.DATA, data)

    def send_fin(self) -> None:
        self.send(FrameType.FIN)

    def read_frame(self) -> tuple[FrameType, bytes] | Ending:
        """The next frame, or how the wire ended. An end inside a frame is a failure: an engine writes whole frames."""
        while True:
            opened = self.opener.open(bytes(self.buffer))
            if opened is not None:
                used, kind, content = opened
                del self.buffer[:used]
                return FrameType(kind), content
            try:
                chunk = self.sock.recv(1 << 18)
            except ConnectionResetError:
                return "reset"
            if not chunk:
                assert not self.buffer, "the wire ended inside a frame"
                return "eof"
            self.buffer += chunk

    def expect(self, kind: FrameType, content: bytes = b"") -> None:
        assert self.read_frame() == (kind, content)

    def expect_reset(self, code: int) -> str:
        """The next frame that is not DATA must be RESET with `code`; returns its text."""
        frame = self.read_frame()
        while isinstance(frame, tuple) and frame[0] is FrameType.DATA:
            frame = self.read_frame()
        assert isinstance(frame, tuple), f"{frame} where RESET should come"
        kind, content = frame
        assert kind is FrameType.RESET
        assert 2 <= len(content) <= 2 + 256
        assert int.from_bytes(content[:2], "big") == code
        return content[2:].decode()

    def read_data(self, size: int) -> bytes:
        """The next `size` application bytes, exactly at a frame's end."""
        out = bytearray()
        while len(out) < size:
            frame = self.read_frame()
            assert isinstance(frame, tuple), f"{frame} after {len(out)} of {size} bytes"
            assert frame[0] is FrameType.DATA, f"{frame[0].name} after {len(out)} of {size} bytes"
            out += frame[1]
        assert len(out) == size
        return bytes(out)

    def read_to_fin(self) -> bytes:
        """All application bytes up to FIN."""
        out = bytearray()
        while True:
            frame = self.read_frame()
            assert isinstance(frame, tuple), f"{frame} after {len(out)} bytes, before FIN"
            kind, content = frame
            if kind is FrameType.FIN:
                assert content == b""
                return bytes(out)
            assert kind is FrameType.DATA
            out += content

    def read_to_end(self) -> tuple[list[tuple[FrameType, bytes]], Ending]:
        """All frames up to the end of the wire, and how it ended."""
        frames: list[tuple[FrameType, bytes]] = []
        while isinstance(frame := self.read_frame(), tuple):
            frames.append(frame)
        return frames, frame


# -- rigs ----------------------------------------------------------------------------------------------------------------


@dataclass
class Rig:
    """An engine between an application and a peer, both played by the test.

    Attributes:
        app: the application's socket.
        peer: the other end of the wire leg.
        relay: the connection under test.
        end: its end.
    """

    app: socket.socket
    peer: Peer
    relay: Relay
    end: EndBox

    def check_alive(self) -> None:
        """Bytes pass both ways."""
        self.app.sendall(b"ping")
        assert self.peer.read_data(4) == b"ping"
        self.peer.send_data(b"pong")
        assert read_exactly(self.app, 4) == b"pong"

    def wait_counts(self, to_wire: int, to_plain: int) -> None:
        """Wait for the counts, which an engine may write a moment after the bytes have passed."""
        deadline = time.monotonic() + PATIENCE
        while self.relay.counts() != (to_wire, to_plain):
            assert time.monotonic() < deadline, f"{self.relay.counts()} where ({to_wire}, {to_plain}) should stand"
            time.sleep(0.001)

    def finish(self) -> RelayEnd:
        """End both directions cleanly, with nothing else under way."""
        self.app.shutdown(socket.SHUT_WR)
        self.peer.expect(FrameType.FIN)
        self.peer.send_fin()
        assert read_to_end(self.app) == (b"", "eof")
        assert self.peer.read_to_end() == ([], "eof")
        return self.end.wait()

    def close(self) -> None:
        for sock in (self.app, self.peer.sock):
            with contextlib.suppress(OSError):
                sock.close()


def make_rig(
    engine: Engine,
    *,
    counters: tuple[int, int] = (0, 0),
    queued: bytes | Callable[[Sealer], bytes] = b"",
    limits: RelayLimits | None = None,
    family: socket.AddressFamily = socket.AF_INET,
    buffers: int | None = None,
    plain: tuple[socket.socket, socket.socket] | None = None,
    user_timeout: int | None = None,
    on_end: Callable[[RelayEnd], None] | None = None,
    give_back: Callable[[WireLeg], None] | None = None,
) -> Rig:
    """Hand a fresh connection to `engine`.

    Args:
        engine: started.
        counters: of the engine's sending and receiving direction.
        queued: the handover's wire_bytes, or what makes them with the peer's sealer.
        limits: the handover's limits.
        family: of both legs.
        buffers: see `tcp_pair`.
        plain: the plain leg (application's end, engine's end), where it is not to be a fresh TCP connection.
        user_timeout: TCP_USER_TIMEOUT of both legs, milliseconds.
        on_end: takes the end in place of the rig's own box.
        give_back: takes the wire leg after both FINs.
    """
    app, near = plain or tcp_pair(family, buffers=buffers)
    far, wire = tcp_pair(family, buffers=buffers)
    if user_timeout is not None:
        for leg in (near, wire):
            leg.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout)
    peer = Peer(far, Sealer(KEY_IN, counters[1]), Opener(KEY_OUT, counters[0]))
    end = EndBox()
    relay = engine.adopt(
        _handover(
            near,
            wire,
            send=DirectionKey(KEY_OUT, counters[0]),
            receive=DirectionKey(KEY_IN, counters[1]),
            wire_bytes=queued if isinstance(queued, bytes) else queued(peer.sealer),
            limits=limits,
            give_back=give_back,
        ),
        on_end or end,
    )
    return Rig(app, peer, relay, end)


@dataclass
class Pair:
    """Two engines back to back between two applications.

    Attributes:
        apps: the two applications' sockets.
        relays: the connection as each engine has it, in the same order.
        ends: its end at each engine.
    """

    apps: tuple[socket.socket, socket.socket]
    relays: tuple[Relay, Relay]
    ends: tuple[EndBox, EndBox]

    def close(self) -> None:
        for sock in self.apps:
            with contextlib.suppress(OSError):
                sock.close()


def make_pair(
    engines: tuple[Engine, Engine],
    *,
    counters: tuple[int, int] = (0, 0),
    limits: RelayLimits | None = None,
    family: socket.AddressFamily = socket.AF_INET,
    buffers: int | None = None,
    disagree: bool = False,
) -> Pair:
    """Put two engines back to back.

    Args:
        engines: started; may be of different kinds.
        counters: of the first engine's sending and receiving direction.
        limits: of both handovers.
        family: of all legs.
        buffers: see `tcp_pair`.
        disagree: give the second engine a wrong key for what the first one sends.
    """
    app_a, plain_a = tcp_pair(family, buffers=buffers)
    app_b, plain_b = tcp_pair(family, buffers=buffers)
    wire_a, wire_b = tcp_pair(family, buffers=buffers)
    forth, back = DirectionKey(KEY_OUT, counters[0]), DirectionKey(KEY_IN, counters[1])
    ends = EndBox(), EndBox()
    relay_a = engines[0].adopt(_handover(plain_a, wire_a, send=forth, receive=back, limits=limits), ends[0])
    if disagree:
        forth = DirectionKey(Secret(bytes(32)), counters[0])
    relay_b = engines[1].adopt(_handover(plain_b, wire_b, send=back, receive=forth, limits=limits), ends[1])
    return Pair((app_a, app_b), (relay_a, relay_b), ends)


def _handover(
    plain: socket.socket,
    wire: socket.socket,
    *,
    send: DirectionKey,
    receive: DirectionKey,
    wire_bytes: bytes = b"",
    limits: RelayLimits | None = None,
    give_back: Callable[[WireLeg], None] | None = None,
) -> Handover:
    plain.setblocking(False)
    wire.setblocking(False)
    return Handover(plain, wire, send, receive, wire_bytes, limits or RelayLimits(), give_back)


def seal_all(sealer: Sealer, data: bytes, size: int = MAX_PLAINTEXT) -> bytes:
    """`data` sealed as DATA frames of at most `size` bytes each."""
    return b"".join(sealer.seal(FrameType.DATA, data[at : at + size]) for at in range(0, len(data), size))


MakeRig: TypeAlias = Callable[..., Rig]
"""The fixture `rig`: `make_rig` on the engine under test."""
MakePair: TypeAlias = Callable[..., Pair]
"""The fixture `pair`: `make_pair` on the engines under test."""
