"""The direction from the wire leg to the plain leg ("down"): receive, open, deliver.

    wire leg --recv--> source --open--> result --send--> plain leg

`source` and `result` are the buffers of the engine's `Scratch`. The common read is one whole DATA frame and takes the shortest
way. The fast path in C (`lane/transfer.c`, `down`) handles DATA frames alone, and calls the methods here for everything else.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Final, NamedTuple

from stcp_proxy.errors import FrameError
from stcp_proxy.protocol import opening
from stcp_proxy.protocol.frames import begins_with_frame
from stcp_proxy.protocol.lifecycle import Phase, follow
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.connection import pending_error, words
from stcp_proxy.relay.ends import Ends
from stcp_proxy.relay.engine import EndReason
from stcp_proxy.relay.states import RELAYING

_DATA: Final = int(FrameType.DATA)
FRAMES_PER_TURN: Final = 256
"""Most frames that one connection opens in a turn. A bound in bytes is no bound in time, because an empty frame costs as much as
a small one: one read holds up to 52,000 empty frames, and 17 frames of bulk data."""


class _Turn(NamedTuple):
    """Result of opening the frames of one turn."""

    at: int
    """Bytes of the source whose frames are opened."""
    filled: int
    """Bytes of plaintext in the result."""
    reset: tuple[int, str] | None
    """Code and text of the peer's RESET."""
    failure: FrameError | None
    """Why a frame was refused."""


class WireToPlain(Ends):
    """The part of a connection that moves bytes from the wire leg to the plain leg."""

    __slots__ = ()

    # -- receive -----------------------------------------------------------------------------------------------------------

    def _down(self) -> None:
        """Move one buffer. The plain leg has nothing left to send."""
        lane = self._engine.lane
        if lane is not None and self._phase is Phase.STREAM:
            lane.down(self, self._wire.fileno(), self._plain.fileno())
            return
        source, held = self._engine.scratch.source, len(self.partial)
        if held:
            source[:held] = self.partial
            if begins_with_frame(self.partial):
                self._open_rest_later()
                self._open_frames(held)
                return
        n = self._receive(source[held:] if held else source)
        if n and (held or self._phase is not Phase.STREAM):
            self._open_frames(held + n)
        elif n:
            self._open_one(n)

    def _receive(self, room: memoryview) -> int:
        """Read from the wire leg into `room`. Returns 0 if there is nothing to open: the reason is dealt with."""
        size = min(len(room), self._engine.read_size)
        try:
            n = self._wire.recv_into(room, size)
        except BlockingIOError:
            self._wire_ready = False
            return 0
        except OSError as exc:
            self._down_failed(exc)
            return 0
        self._note_read(n)
        if n == 0:
            self._end_of_wire()
        elif n == size or self._wire_to_end:
            self._wire_ready = True
            self._queue()
        else:
            self._wire_ready = False
        return n

    def _down_failed(self, exc: OSError) -> None:
        """A read from the wire leg failed."""
        self._lose(EndReason.TRUNCATED, text=self._why_broken or words(exc))

    def _end_of_wire(self) -> None:
        """The wire leg reached EOF: truncation, unless FIN has come and this side can still send."""
        if self._phase is not Phase.ENDED or self.partial:
            self._lose(EndReason.TRUNCATED, text=self._why_broken or "the peer closed the wire leg without FIN or inside a frame")
        elif self._why_broken or pending_error(self._wire):
            self._lose(EndReason.TRUNCATED, text=self._why_broken or "the wire leg broke before this side's FIN")
        else:
            self._wire_ready = False

    # -- open --------------------------------------------------------------------------------------------------------------

    def _open_one(self, size: int) -> None:
        """Open the first `size` bytes of the scratch as one DATA frame, or as anything else where they are not one."""
        try:
            data = self._opener.open_scratch(self._engine.scratch, size)
        except FrameError as exc:
            self._lose(EndReason.BAD_FRAME, text=exc.what)
            return
        if data is None:
            self._open_frames(size)
        else:
            self._deliver(data)

    def _open_frames(self, size: int, at: int = 0, filled: int = 0, *, into_scratch: bool = False) -> None:
        """Open whole frames of the first `size` bytes of the scratch, at most FRAMES_PER_TURN, and deliver their plaintext.

        Args:
            size: bytes in the scratch's source.
            at: bytes of these whose frames are already opened.
            filled: bytes of plaintext from those frames, in the scratch's result.
            into_scratch: copy `partial` into the source first.
        """
        scratch = self._engine.scratch
        if into_scratch:
            scratch.source[:size] = self.partial
        data = scratch.source[:size]
        turn = self._open_turn(data, at, filled)
        self.partial = bytes(data[turn.at :]) if turn.at < size else b""
        if turn.failure is None and begins_with_frame(self.partial) and not self._next_connection_follows:
            self._open_rest_later()
        if turn.filled:
            self._deliver(scratch.result[: turn.filled])
        if self._state in RELAYING:
            self._act_on(turn)

    def _open_turn(self, data: memoryview, at: int, filled: int) -> _Turn:
        """Open frames of `data` from `at` on, up to the first RESET, refused frame or incomplete frame."""
        out, opener = self._engine.scratch.result, self._opener
        last = opener.counter + FRAMES_PER_TURN
        try:
            while opener.counter < last:
                opened = opener.open_into(data[at:] if at else data, out[filled:] if filled else out)
                if opened is None:
                    break
                used, kind, length = opened
                at += used
                if kind == _DATA and self._phase is Phase.STREAM:
                    filled += length
                elif reset := self._control_frame(kind, bytes(out[filled : filled + length])):
                    return _Turn(at, filled, reset, None)
                elif self._next_connection_follows:
                    break
        except FrameError as exc:
            return _Turn(at, filled, None, exc)
        return _Turn(at, filled, None, None)

    @property
    def _next_connection_follows(self) -> bool:
        """Whether frames that arrive now belong to no connection, or to the next one on this leg: they are not opened here."""
        return self._give_back is not None and self._wire_is_over

    def _control_frame(self, kind: int, content: bytes) -> tuple[int, str] | None:
        """Follow a frame that is not DATA in its place. Returns code and text of RESET, None for FIN.

        Raises:
            FrameError: the frame is out of place or malformed.
        """
        self._phase = follow(self._phase, kind)
        if self._phase is Phase.CLOSED:
            return opening.decode_reason(content)
        if self._phase is Phase.ENDED:
            opening.check_fin(content)
        return None

    def _open_rest_later(self) -> None:
        """`partial` begins with a whole frame: open it in the next turn, before anything more is read."""
        self._wire_ready = True
        self._queue()

    def _act_on(self, turn: _Turn) -> None:
        """The plaintext before it is delivered: act on a refused frame, on RESET or on FIN."""
        if turn.failure is not None:
            self._lose(EndReason.BAD_FRAME, text=turn.failure.what)
        elif turn.reset is not None:
            self._lose(EndReason.PEER_RESET, *turn.reset)
        elif self._phase is Phase.ENDED:
            if self.plain_left is None:
                self._end_down()
            else:
                self._finish_if_done()

    # -- deliver -----------------------------------------------------------------------------------------------------------

    def _deliver(self, data: memoryview) -> None:
        try:
            done = self._plain.send(data)
        except BlockingIOError:
            done = 0
        except OSError:
            self._plain_failed()
            return
        self._received += done
        if done < len(data):
            self._delivered_short(bytes(data[done:]))

    def _delivered_short(self, rest: bytes) -> None:
        """Keep the remainder of a short write to the plain leg."""
        self.plain_left = rest
        self._count_held()
        if not self._watched:
            self._watch_stall()

    def _flush_plain(self) -> None:
        """Write `plain_left`, and continue once all of it is written."""
        left = self.plain_left
        if left is None:
            return
        try:
            done = self._plain.send(left)
        except BlockingIOError:
            return
        except OSError:
            self._plain_failed()
            return
        self._received += done
        self.plain_left = left[done:] if done < len(left) else None
        self._count_held()
        if self.plain_left is None:
            self._plain_flushed()

    def _plain_flushed(self) -> None:
        """The plain leg took every byte: do what waited for that."""
        if self._phase is Phase.ENDED:
            self._end_down()
        if self._state in RELAYING and self._wire_ready:
            self._down()

    def _end_down(self) -> None:
        """FIN has come, and the plain leg has taken every byte before it."""
        with contextlib.suppress(OSError):
            self._plain.shutdown(socket.SHUT_WR)
        self._half_close()
