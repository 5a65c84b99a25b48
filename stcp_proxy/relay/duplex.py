"""One connection inside the user-space engine: two legs, two directions, from handover to close.

    plain leg --recv--> in --seal--> out --send--> wire leg        ("up")
    wire leg  --recv--> in --open--> out --send--> plain leg       ("down")

`in` and `out` are the two buffers of the engine's `Scratch`, shared by all connections. A connection keeps bytes of its own only
for a partial send (`wire_left`, `plain_left`) and for the beginning of a frame (`partial`). The common case, one read that is one
message, takes the short way: no branch that it does not need, and no slice that `Scratch` does not already have.

Readiness is edge-triggered: each leg is registered once, for everything, and the flags `plain_ready` and `wire_ready` remember
that a leg may have bytes. A read that did not fill the buffer has drained the socket, so the flag falls without asking again,
unless end, error or urgent data was announced, behind which no further edge comes: then the leg is read until it says so itself.
A direction whose send came up short leaves its flag standing and reads no more until the rest has gone: that is the back-pressure
and the memory bound.

One step moves at most one buffer; a connection with more to do queues itself behind all others.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from stcp_proxy.errors import Code, FrameError, StcpError
from stcp_proxy.protocol import opening
from stcp_proxy.protocol.frames import Opener, Sealer, begins_with_frame
from stcp_proxy.protocol.lifecycle import Phase, follow
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason, Handover, RelayEnd
from stcp_proxy.relay.plain_leg import finish_on_close, reset_on_close
from stcp_proxy.relay.states import NEXT, RELAYING, Event, State
from stcp_proxy.relay.zero_window import LegWatch, Look

if TYPE_CHECKING:
    from stcp_proxy.relay.pump import PumpEngine

INTEREST: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLHUP | select.EPOLLERR
_TO_THE_END: Final = select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLHUP | select.EPOLLERR
_OUT: Final = select.EPOLLOUT
_ERROR: Final = select.EPOLLERR
_JUST_BYTES: Final = select.EPOLLIN | select.EPOLLOUT
"""What epoll reports of a leg that has bytes to read, and is otherwise as it was."""
_DATA: Final = int(FrameType.DATA)
FRAMES_PER_TURN: Final = 256
"""Most frames that one connection opens before the others get their turn. An empty frame costs as much as a small one, so
bytes alone are no bound: one read of a flood holds 52,000. A read of bulk data holds 17."""
STALL_CHECK: Final = 1.0
"""Seconds between two looks at legs that have bytes waiting; well below any TCP_USER_TIMEOUT."""
_log: Final = logging.getLogger(__name__)


class Duplex:
    """A connection that the pump carries; the `Relay` that its owner holds.

    All methods but `counts` and `abort` belong to the engine's thread.
    """

    __slots__ = (
        "_active",
        "_end",
        "_engine",
        "_held",
        "_limits",
        "_on_end",
        "_opener",
        "_phase",
        "_plain",
        "_plain_ready",
        "_plain_to_end",
        "_queued",
        "_received",
        "_sealer",
        "_sent",
        "_state",
        "_watched",
        "_watches",
        "_why_broken",
        "_wire",
        "_wire_ready",
        "_wire_to_end",
        "partial",
        "plain_left",
        "wire_left",
    )

    engine: Final = "python"
    why_engine: Final = ""

    def __init__(self, pump: PumpEngine, handover: Handover, on_end: Callable[[RelayEnd], None]) -> None:
        self._engine = pump
        self._plain: socket.socket = handover.plain
        reset_on_close(self._plain)
        self._wire: socket.socket = handover.wire
        self._sealer = Sealer(handover.send.key, handover.send.counter)
        self._opener = Opener(handover.receive.key, handover.receive.counter)
        self._limits = handover.limits
        self._on_end: Callable[[RelayEnd], None] | None = on_end
        self._end: RelayEnd | None = None
        """How the connection ended; set when it enters RESETTING or CLOSED."""
        self._state = State.OPEN
        self._phase = Phase.STREAM
        """Which frames may come from the wire leg."""
        self._why_broken = ""
        """Why a write to the wire leg failed; set in WIRE_BROKEN."""
        self._plain_ready = self._wire_ready = True
        self._plain_to_end = self._wire_to_end = False
        self._queued = False
        self._sent = self._received = 0
        self._active = 0.0
        self._held = 0
        """Bytes that the engine counts as held here."""
        self._watched = False
        """Whether a look at the legs is due."""
        self._watches: tuple[LegWatch, LegWatch] | None = None
        """Of the plain and the wire leg; None while nothing waits in either."""
        self.partial = handover.wire_bytes
        self.plain_left: bytes | None = None
        self.wire_left: bytes | None = None

    # -- from any thread ---------------------------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """Application bytes so far: (plain to wire, wire to plain)."""
        return self._sent, self._received

    def abort(self, code: Code, text: str) -> None:
        """Send RESET to the peer and a TCP RST to the application."""
        self._engine.call(self, lambda: self._reset(EndReason.ABORTED, code, text))

    # -- the engine's thread -----------------------------------------------------------------------------------------------

    @property
    def legs(self) -> tuple[socket.socket, socket.socket]:
        """Plain and wire leg."""
        return self._plain, self._wire

    def begin(self) -> None:
        """First step after registration: frames that came with the handover. What the legs hold, epoll tells of."""
        self._touch()
        self._watch()
        if self.partial:
            self._open_frames(len(self.partial), into_scratch=True)

    def on_plain(self, mask: int) -> None:
        """The plain leg has news: `mask` is epoll's."""
        self._active = self._engine.now
        if mask & _OUT and self.plain_left is not None:
            self._flush_plain()
        if mask == _JUST_BYTES:
            if self.wire_left is None and self._state is State.OPEN:
                self._up()
            else:
                self._plain_ready = True
        elif mask & _READABLE and self._state in RELAYING:
            if mask & _TO_THE_END:
                self._plain_to_end = True
                # An error waits behind unread bytes; where nothing reads them, it has to be asked for.
                unread = self.wire_left is not None or self._state is not State.OPEN
                if mask & _ERROR and unread and _error(self._plain):
                    self._reset(EndReason.PLAIN_RESET, Code.PLAIN_RESET, "")
                    return
            self._plain_ready = True
            if self.wire_left is None and self._state is State.OPEN:
                self._up()

    def on_wire(self, mask: int) -> None:
        """The wire leg has news: `mask` is epoll's."""
        self._active = self._engine.now
        if mask & _OUT and self.wire_left is not None:
            self._flush_wire()
        if mask == _JUST_BYTES and self.plain_left is None and self._state in RELAYING:
            self._down()
        elif mask & _READABLE and self._state is not State.CLOSED:
            if mask & _TO_THE_END:
                self._wire_to_end = True
            self._wire_ready = True
            if self._state is State.RESETTING:
                self._drain_wire()
            elif self.plain_left is None:
                self._down()

    def step(self) -> None:
        """Go on where a full buffer or a full turn had stopped this connection."""
        self._queued = False
        self._active = self._engine.now
        if self._plain_ready and self.wire_left is None and self._state is State.OPEN:
            self._up()
        if self._state is State.RESETTING:
            if self._wire_ready:
                self._drain_wire()
        elif self._wire_ready and self.plain_left is None and self._state in RELAYING:
            self._down()

    def on_deadline(self) -> None:
        """The deadline set last has passed."""
        if self._state is State.RESETTING:
            self._flush_wire()
            if self.wire_left is not None:
                self._kill(self._wire)
            self._close()
            return
        limit = self._limit()
        if limit is None:
            return
        if self._active + limit > self._engine.now:
            self._watch()
        elif self._has_news():
            self._active = self._engine.now
            self._queue()
            self._watch()
            self._flush_plain()
            self._flush_wire()
        elif self._half_closed and self._limits.half_close is not None and limit == self._limits.half_close:
            self._reset(EndReason.HALF_CLOSE_TIMEOUT, Code.IDLE_TIMEOUT, f"half-closed and idle for {limit:g} s")
        else:
            self._reset(EndReason.IDLE_TIMEOUT, Code.IDLE_TIMEOUT, f"idle for {limit:g} s")

    def _has_news(self) -> bool:
        """Ask both legs whether bytes wait that this connection would move: a paused process has not heard of them yet."""
        plain, wire = self._plain.fileno(), self._wire.fileno()
        poll = select.poll()
        poll.register(plain, self._awaited(reads=self._state is State.OPEN and self.wire_left is None, left=self.plain_left))
        poll.register(wire, self._awaited(reads=self._phase is Phase.STREAM and self.plain_left is None, left=self.wire_left))
        found = dict(poll.poll(0))
        self._plain_ready |= bool(found.get(plain, 0) & select.POLLIN)
        self._wire_ready |= bool(found.get(wire, 0) & select.POLLIN)
        return any(mask & (select.POLLIN | select.POLLOUT) for mask in found.values())

    @staticmethod
    def _awaited(*, reads: bool, left: bytes | None) -> int:
        return (select.POLLIN if reads else 0) | (select.POLLOUT if left is not None else 0)

    def watch_if_active(self, since: float) -> None:
        """Have a look soon if anything has happened here since `since`."""
        if self._active >= since and not self._watched:
            self._watch_stall()

    def on_stall_check(self) -> None:
        """Something was sent, or came up short, a while ago: see what became of it; `zero_window` says why."""
        self._watched = False
        if self._state not in RELAYING:
            return
        plain, wire = self._watches = self._watches or (LegWatch(self._plain), LegWatch(self._wire))
        now = self._engine.now
        looks = (plain.look(now), Look.AT_REST if self._state is State.WIRE_BROKEN else wire.look(now))
        if looks[0] is Look.DEAD:
            self._reset(EndReason.PLAIN_RESET, Code.PLAIN_RESET, "")
        elif looks[1] is Look.DEAD:
            self._lose(EndReason.TRUNCATED, text="the peer stopped answering")
        elif Look.WAITING in looks:
            self._watch_stall()
        else:
            self._watches = None

    def _watch_stall(self) -> None:
        self._watched = True
        self._engine.stalls.set(self, self._engine.now + STALL_CHECK)

    def fail(self, exc: BaseException) -> None:
        """A bug of ours: end this connection, and no other."""
        self._lose(EndReason.INTERNAL_ERROR, text=f"{type(exc).__name__}: {exc}")

    def drop(self) -> None:
        """Give both legs a TCP RST without ceremony: the engine closes."""
        self._lose(EndReason.ABORTED, text="the engine was closed")

    # -- up: plain to wire -------------------------------------------------------------------------------------------------

    def _up(self) -> None:
        lane = self._engine.lane
        if lane is not None:
            lane.up(self, self._plain.fileno(), self._wire.fileno())
            return
        scratch = self._engine.scratch
        try:
            n = self._plain.recv_into(scratch.source, self._engine.read_size)
        except BlockingIOError:
            self._plain_ready = False
            return
        except OSError:
            self._plain_failed()
            return
        self._up_read(n, n == self._engine.read_size)

    def _up_read(self, n: int, full: bool) -> None:
        """Seal and send what was read from the plain leg.

        Args:
            n: bytes in the scratch; 0 at EOF.
            full: the read took as much as it could, so that more may wait.
        """
        if n == 0:
            self._end_up()
            return
        try:
            frames = self._sealer.seal_scratch(self._engine.scratch, n)
        except StcpError as exc:
            self._lose(EndReason.BAD_FRAME, text=str(exc))
            return
        self._sent += n
        if full or self._plain_to_end:
            self._plain_ready = True
            self._queue()
        else:
            self._plain_ready = False
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
        """Of some frames only a part went."""
        self.wire_left = rest
        self._count_held()
        if not self._watched:
            self._watch_stall()

    def _count_held(self) -> None:
        """Tell the engine how many bytes wait here for a reader."""
        held = len(self.wire_left or b"") + len(self.plain_left or b"")
        if held != self._held:
            self._engine.hold(held - self._held)
            self._held = held

    def _plain_failed(self) -> None:
        """The application's socket takes or gives no more."""
        self._reset(EndReason.PLAIN_RESET, Code.PLAIN_RESET, "")

    def _end_up(self) -> None:
        """The application has ended its direction."""
        self._plain_ready = False
        self._follow(Event.PLAIN_EOF)
        try:
            self._send_frame(FrameType.FIN, b"")
        except StcpError as exc:
            self._lose(EndReason.BAD_FRAME, text=str(exc))
            return
        self._half_close()

    def _send_frame(self, kind: FrameType, plaintext: bytes) -> None:
        """Put one frame behind what is left to send, and send what can be sent."""
        frame = self._sealer.seal(kind, plaintext)
        self.wire_left = frame if self.wire_left is None else self.wire_left + frame
        self._flush_wire()

    def _flush_wire(self) -> None:
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
        if done < len(left):
            self.wire_left = left[done:]
            self._count_held()
            return
        self.wire_left = None
        self._count_held()
        if self._state is State.RESETTING:
            self._shut_wire()
        elif self._state is State.UP_ENDED:
            self._finish_if_done()
        elif self._plain_ready:
            self._up()

    def _wire_broke(self, exc: OSError) -> None:
        """The wire leg takes no more. What it has received may still be a RESET that says why: read to its end first."""
        if self._state not in RELAYING:
            self._close()
            return
        self._follow(Event.WIRE_BROKE)
        self._why_broken = _words(exc)
        self.wire_left = None
        self._count_held()
        self._wire_ready = self._wire_to_end = True
        self._queue()

    # -- down: wire to plain -----------------------------------------------------------------------------------------------

    def _down(self) -> None:
        lane = self._engine.lane
        if lane is not None and self._phase is Phase.STREAM:
            lane.down(self, self._wire.fileno(), self._plain.fileno())
            return
        scratch = self._engine.scratch
        room = scratch.source
        held = len(self.partial)
        if held:
            room[:held] = self.partial
            room = room[held:]
            if begins_with_frame(self.partial):
                self._open_rest_later()
                self._open_frames(held)
                return
        size = min(len(room), self._engine.read_size)
        try:
            n = self._wire.recv_into(room, size)
        except BlockingIOError:
            self._wire_ready = False
            return
        except OSError as exc:
            self._down_failed(exc)
            return
        if n == 0:
            self._end_of_wire()
            return
        if n == size or self._wire_to_end:
            self._wire_ready = True
            self._queue()
        else:
            self._wire_ready = False
        if held or self._phase is not Phase.STREAM:
            self._open_frames(held + n)
            return
        try:
            data = self._opener.open_scratch(scratch, n)
        except FrameError as exc:
            self._lose(EndReason.BAD_FRAME, text=str(exc))
            return
        if data is None:
            self._open_frames(n)
        else:
            self._deliver(data)

    def _open_rest_later(self) -> None:
        """`partial` holds whole frames: open them before anything more is read."""
        self._wire_ready = True
        self._queue()

    def _down_failed(self, exc: OSError) -> None:
        """The wire leg gives no more, and says why."""
        self._lose(EndReason.TRUNCATED, text=self._why_broken or _words(exc))

    def _end_of_wire(self) -> None:
        """The wire leg has no more bytes: truncation, unless FIN has come and our direction can still be sent."""
        if self._phase is not Phase.ENDED or self.partial:
            self._lose(EndReason.TRUNCATED, text=self._why_broken or "the peer closed the wire leg without FIN or inside a frame")
        elif self._why_broken or _error(self._wire):
            self._lose(EndReason.TRUNCATED, text=self._why_broken or "the wire leg broke before this side's FIN")
        else:
            self._wire_ready = False

    def _open_frames(self, size: int, at: int = 0, filled: int = 0, *, into_scratch: bool = False) -> None:
        """Open whole frames of the first `size` bytes of the scratch, at most FRAMES_PER_TURN, and send what they held.

        Args:
            size: bytes in the scratch's source.
            at: bytes of these whose frames have been opened.
            filled: bytes that those frames held, in the scratch's result.
            into_scratch: put `partial` into the source first.
        """
        scratch = self._engine.scratch
        if into_scratch:
            scratch.source[:size] = self.partial
        data = scratch.source[:size]
        out = scratch.result
        failure: FrameError | None = None
        reset: bytes | None = None
        open_into = self._opener.open_into
        last = self._opener.counter + FRAMES_PER_TURN
        try:
            while (
                self._opener.counter < last
                and (opened := open_into(data[at:] if at else data, out[filled:] if filled else out)) is not None
            ):
                used, kind, length = opened
                at += used
                if kind == _DATA and self._phase is Phase.STREAM:
                    filled += length
                    continue
                self._phase = follow(self._phase, kind)
                if self._phase is Phase.CLOSED:
                    reset = bytes(out[filled : filled + length])
                    opening.decode_reason(reset)
                    break
                if self._phase is Phase.ENDED:
                    opening.check_fin(bytes(out[filled : filled + length]))
        except FrameError as exc:
            failure = exc
        self.partial = bytes(data[at:]) if at < size else b""
        if failure is None and begins_with_frame(self.partial):
            self._open_rest_later()
        if filled:
            self._deliver(out[:filled])
        if self._state not in RELAYING:
            return
        if failure is not None:
            self._lose(EndReason.BAD_FRAME, text=str(failure))
        elif reset is not None:
            code, text = opening.decode_reason(reset)
            self._lose(EndReason.PEER_RESET, code, text)
        elif self._phase is Phase.ENDED and self.plain_left is None:
            self._end_down()

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
        """Of some plaintext only a part went."""
        self.plain_left = rest
        self._count_held()
        if not self._watched:
            self._watch_stall()

    def _flush_plain(self) -> None:
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
        if done < len(left):
            self.plain_left = left[done:]
            self._count_held()
            return
        self.plain_left = None
        self._count_held()
        if self._phase is Phase.ENDED:
            self._end_down()
        if self._state in RELAYING and self._wire_ready:
            self._down()

    def _end_down(self) -> None:
        """FIN has come and every byte before it has been taken by the plain leg."""
        with contextlib.suppress(OSError):
            self._plain.shutdown(socket.SHUT_WR)
        self._half_close()

    # -- ends --------------------------------------------------------------------------------------------------------------

    def _follow(self, event: Event) -> None:
        self._state = NEXT[self._state, event]

    @property
    def _half_closed(self) -> bool:
        return self._state is State.UP_ENDED or self._phase is Phase.ENDED

    def _half_close(self) -> None:
        if not self._finish_if_done():
            self._watch()

    def _finish_if_done(self) -> bool:
        if self._state not in RELAYING:
            return True
        if self._state is State.UP_ENDED and self.wire_left is None and self._phase is Phase.ENDED and self.plain_left is None:
            self._end = self._summary(EndReason.FINISHED, None, "")
            self._close()
            return True
        return False

    def _reset(self, reason: EndReason, code: Code, text: str) -> None:
        """End the connection from this side: RESET to the peer, a TCP RST to the application."""
        if self._state not in RELAYING:
            return
        if self._state is State.WIRE_BROKEN:
            self._lose(reason, code, text)
            return
        self._follow(Event.RESET)
        self._end = self._summary(reason, code, text)
        self._kill(self._plain)
        self.plain_left = None
        self._count_held()
        self.partial = b""
        self._engine.deadlines.set(self, self._engine.now + self._limits.linger)
        try:
            self._send_frame(FrameType.RESET, opening.encode_reason(code, text))
        except StcpError:
            self._close()
            return
        if self._on_end is not None and self._wire_ready:
            self._queue()

    def _lose(self, reason: EndReason, code: int | None = None, text: str = "") -> None:
        """End the connection where the wire leg has nothing more to carry: a TCP RST to both legs."""
        if self._state is State.CLOSED:
            return
        if self._end is None:
            self._end = self._summary(reason, code, text)
        if reason is not EndReason.PEER_RESET:
            self._kill(self._wire)
        self._close()

    def _shut_wire(self) -> None:
        """RESET has gone: end our side of the wire leg, and keep reading so that TCP does not destroy the frame on its way."""
        try:
            self._wire.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()

    def _drain_wire(self) -> None:
        try:
            n = self._wire.recv_into(self._engine.scratch.source)
        except BlockingIOError:
            self._wire_ready = False
            return
        except OSError:
            n = 0
        if n == 0:
            self._close()
        else:
            self._queue()

    def _summary(self, reason: EndReason, code: int | None, text: str) -> RelayEnd:
        return RelayEnd(reason, self._sent, self._received, code, text)

    def _kill(self, leg: socket.socket) -> None:
        """Close one leg so that its other end sees a TCP RST."""
        if leg.fileno() < 0:
            return
        self._engine.forget(leg)
        reset_on_close(leg)
        leg.close()

    def _close(self) -> None:
        """Both legs down, the owner told. The plain leg sees a clean end only when the connection finished."""
        on_end, end = self._on_end, self._end
        if on_end is None or end is None:
            return
        self._follow(Event.CLOSE)
        self._on_end = None
        self._engine.deadlines.discard(self)
        self._engine.stalls.discard(self)
        if end.reason is EndReason.FINISHED:
            finish_on_close(self._plain)
        else:
            self._kill(self._plain)
        for leg in (self._plain, self._wire):
            if leg.fileno() >= 0:
                self._engine.forget(leg)
                leg.close()
        self.partial = b""
        self.plain_left = self.wire_left = None
        self._count_held()
        try:
            on_end(end)
        except Exception:  # the owner's bug or its end: no reason for the other connections to suffer
            _log.exception("on_end of a relayed connection raised")

    # -- turns and deadlines -----------------------------------------------------------------------------------------------

    def _queue(self) -> None:
        if not self._queued:
            self._queued = True
            self._engine.again.append(self)

    def _touch(self) -> None:
        self._active = self._engine.now

    def _limit(self) -> float | None:
        """Seconds of rest that this connection is allowed now."""
        limits = [self._limits.idle]
        if self._half_closed:
            limits.append(self._limits.half_close)
        return min((limit for limit in limits if limit is not None), default=None)

    def _watch(self) -> None:
        limit = self._limit()
        if limit is not None:
            self._engine.deadlines.set(self, self._active + limit)


def _error(leg: socket.socket) -> bool:
    """Whether an error waits at `leg`, a reset above all. Behind EOF, recv does not tell."""
    return leg.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def _words(exc: OSError) -> str:
    return f"the wire leg broke: {exc.strerror or exc}"
