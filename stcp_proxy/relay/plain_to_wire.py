"""The direction from the plain leg to the wire leg ("up"): read, seal, send.

    plain leg --recv--> source --seal--> result --send--> wire leg

`source` and `result` are the buffers of the engine's `Scratch`. The fast path in C (`lane/transfer.c`, `up`) does the same for
DATA frames, and calls the methods here for everything else.
"""

from __future__ import annotations

from stcp_proxy.errors import StcpError
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.connection import words
from stcp_proxy.relay.ends import Ends
from stcp_proxy.relay.engine import EndReason
from stcp_proxy.relay.states import RELAYING, Event, State


class PlainToWire(Ends):
    """The part of a connection that moves bytes from the plain leg to the wire leg."""

    __slots__ = ()

    def _up(self) -> None:
        """Move one buffer. The wire leg has nothing left to send, and the state is OPEN."""
        lane = self._engine.lane
        if lane is not None:
            lane.up(self, self._plain.fileno(), self._wire.fileno())
            return
        size = self._engine.read_size
        try:
            n = self._plain.recv_into(self._engine.scratch.source, size)
        except BlockingIOError:
            self._plain_ready = False
            return
        except OSError:
            self._plain_failed()
            return
        self._note_read(n)
        self._up_read(n, n == size)

    def _up_read(self, n: int, full: bool) -> None:
        """Seal and send the bytes read from the plain leg.

        Args:
            n: bytes in the scratch; 0 at EOF.
            full: the read filled the buffer, so the leg may have more bytes.
        """
        if n == 0:
            self._end_up()
            return
        try:
            frames = self._sealer.seal_scratch(self._engine.scratch, n)
        except StcpError as exc:
            self._lose(EndReason.BAD_FRAME, text=exc.what)
            return
        self._sent += n
        if full or self._plain_to_end:
            self._plain_ready = True
            self._queue()
        else:
            self._plain_ready = False
        self._send_frames(frames)

    def _send_frames(self, frames: memoryview) -> None:
        try:
            done = self._wire.send(frames)
        except BlockingIOError:
            done = 0
        except OSError as exc:
            self._wire_broke(exc)
            return
        if done < len(frames):
            self._sent_short(bytes(frames[done:]))

    def _sent_short(self, rest: bytes) -> None:
        """Keep the remainder of a short write to the wire leg."""
        self.wire_left = rest
        self._count_held()
        if not self._watched:
            self._watch_stall()

    def _end_up(self) -> None:
        """The application has ended its direction: send FIN."""
        self._plain_ready = False
        self._follow(Event.PLAIN_EOF)
        try:
            self._send_frame(FrameType.FIN, b"")
        except StcpError as exc:
            self._lose(EndReason.BAD_FRAME, text=exc.what)
            return
        self._half_close()

    def _send_frame(self, kind: FrameType, plaintext: bytes) -> None:
        """Append one frame to `wire_left`, then write as much as the wire leg takes."""
        frame = self._sealer.seal(kind, plaintext)
        self.wire_left = frame if self.wire_left is None else self.wire_left + frame
        self._flush_wire()

    def _flush_wire(self) -> None:
        """Write `wire_left`, and continue once all of it is written."""
        left = self.wire_left
        if left is None:
            return
        try:
            done = self._wire.send(left)
        except BlockingIOError:
            return
        except OSError as exc:
            self._wire_broke(exc)
            return
        self.wire_left = left[done:] if done < len(left) else None
        self._count_held()
        if self.wire_left is None:
            self._wire_flushed()

    def _wire_flushed(self) -> None:
        """The wire leg took every byte: do what waited for that."""
        if self._state is State.RESETTING:
            self._shut_wire()
        elif self._state is State.UP_ENDED:
            self._finish_if_done()
        elif self._plain_ready:
            self._up()

    def _wire_broke(self, exc: OSError) -> None:
        """A write to the wire leg failed. Read the leg to its end first: a RESET in it may say why."""
        if self._state not in RELAYING:
            self._close()
            return
        self._follow(Event.WIRE_BROKE)
        self._why_broken = words(exc)
        self.wire_left = None
        self._count_held()
        self._wire_ready = self._wire_to_end = True
        self._queue()
