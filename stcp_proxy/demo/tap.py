"""The eavesdropper: a relay on the wire leg that copies every byte, and can change one bit.

It has no key. It can distinguish only what the wire format leaves unencrypted: the two handshake messages, and the type and
length of every later frame.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

import trio

from stcp_proxy.protocol.wire import HEADER_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN, FrameType, Suite

_RST_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Item:
    """One handshake message or frame on the wire.

    Attributes:
        upwards: whether it goes from the connecting side to the listening side.
        name: its name for the output.
        kind: its frame type; None for a handshake message.
        start, size: its position in the bytes of its direction, and its length.
        header: the number of its unencrypted bytes.
    """

    upwards: bool
    name: str
    kind: int | None
    start: int
    size: int
    header: int


@dataclass
class Direction:
    """The bytes of one direction, in order of arrival."""

    upwards: bool
    data: bytearray = field(default_factory=bytearray)
    end: str = ""
    _next: int = 0
    """The position where the next item begins."""

    def feed(self, data: bytes) -> list[Item]:
        """Add bytes. Returns the items whose header has become complete."""
        self.data += data
        items = []
        while (item := self._cut()) is not None:
            items.append(item)
            self._next = item.start + item.size
        return items

    def of(self, item: Item) -> bytes:
        """The bytes of an item."""
        return bytes(self.data[item.start : item.start + item.size])

    def _cut(self) -> Item | None:
        start = self._next
        if start == 0:
            return self._message()
        if len(self.data) < start + HEADER_LEN:
            return None
        kind, _, length = struct.unpack_from(">BBH", self.data, start)
        name = FrameType(kind).name if kind in set(FrameType) else f"type {kind}"
        return Item(self.upwards, name, kind, start, HEADER_LEN + length, HEADER_LEN)

    def _message(self) -> Item | None:
        """The handshake message, which is the first item in either direction."""
        header = (PROLOGUE_LEN if self.upwards else 0) + MESSAGE_LENGTH_LEN
        if len(self.data) < header:
            return None
        (length,) = struct.unpack_from(">H", self.data, header - MESSAGE_LENGTH_LEN)
        return Item(self.upwards, f"handshake {1 if self.upwards else 2}", None, 0, header + length, header)


@dataclass
class Recording:
    """All bytes of one wire leg.

    Attributes:
        up, down: the two directions.
        items: the items of both directions, in order of arrival.
        flipped: the item with the changed bit.
        ended: set when both directions have ended.
    """

    up: Direction = field(default_factory=lambda: Direction(upwards=True))
    down: Direction = field(default_factory=lambda: Direction(upwards=False))
    items: list[Item] = field(default_factory=list)
    flipped: Item | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def size(self) -> int:
        """The number of bytes in both directions."""
        return len(self.up.data) + len(self.down.data)

    def of(self, item: Item) -> bytes:
        """The bytes of an item."""
        return (self.up if item.upwards else self.down).of(item)

    @property
    def suite(self) -> str:
        """The suite that the prologue names."""
        number = self.up.data[PROLOGUE_LEN - 1] if len(self.up.data) >= PROLOGUE_LEN else 0
        return Suite(number).name.lower().replace("_", " ") if number in set(Suite) else f"suite {number}"


class Tap:
    """Listens at the address that the connecting side dials, and relays to the listening side.

    Attributes:
        port: its listening port on 127.0.0.1.
        target: the listening side's port; set before `serve`.
        flip: the number, from 0, of the upward DATA frame in the next connection in which one bit is changed.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.target = 0
        self.flip: int | None = None
        self._recordings: list[Recording] = []
        self._grew = trio.Event()

    async def serve(self) -> None:
        """Relay until cancelled."""
        with self._listener:
            listener = trio.socket.from_stdlib_socket(self._listener)
            async with trio.open_nursery() as nursery:
                while True:
                    sock, _ = await listener.accept()
                    nursery.start_soon(self._relay, sock)

    async def recording(self, number: int) -> Recording:
        """The recording of the connection with this number, from 0; waits for this connection."""
        while len(self._recordings) <= number:
            await self._grew.wait()
        return self._recordings[number]

    async def _relay(self, client: trio.socket.SocketType) -> None:
        recording = Recording()
        self._recordings.append(recording)
        self._grew.set()
        self._grew = trio.Event()
        server = trio.socket.socket()
        with client, server:
            try:
                await server.connect(("127.0.0.1", self.target))
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                flip, self.flip = self.flip, None
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, recording, recording.up, client, server, flip)
                    nursery.start_soon(_pump, recording, recording.down, server, client, None)
            except* OSError:
                for sock in (client, server):  # one leg was reset: reset the other leg, too
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            finally:
                recording.ended.set()


async def _pump(
    recording: Recording, way: Direction, source: trio.socket.SocketType, sink: trio.socket.SocketType, flip: int | None
) -> None:
    """Copy one direction to its end. Raises OSError when a leg is reset."""
    flip_at: int | None = None
    frames = 0
    while True:
        try:
            data = await source.recv(65536)
        except OSError:
            way.end = "reset"
            raise
        if not data:
            way.end = "EOF"
            sink.shutdown(socket.SHUT_WR)
            return
        start = len(way.data)
        for item in way.feed(data):
            recording.items.append(item)
            if item.kind == FrameType.DATA:
                if frames == flip:
                    recording.flipped, flip_at = item, item.start + item.header
                frames += 1
        if flip_at is not None and start <= flip_at < start + len(data):
            data = _with_bit_flipped(data, flip_at - start)
        await _send_all(sink, data)


def _with_bit_flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


async def _send_all(sink: trio.socket.SocketType, data: bytes) -> None:
    with memoryview(data) as view:
        sent = 0
        while sent < len(view):
            sent += await sink.send(view[sent:])
