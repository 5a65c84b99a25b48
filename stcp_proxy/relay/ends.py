"""How a relayed connection ends: finish, reset, loss, and the close that follows each.

- Finish: both directions ended and every byte was written. The plain leg ends by FIN. A wire leg that is kept was given back
  before, as soon as both FINs had passed it: an application that reads slowly must not hold up the next connection.
- Reset: this side ends the connection. The peer gets a RESET frame, the application a TCP RST. The wire leg is then read until
  the peer closes it or `RelayLimits.linger` has passed, so that TCP does not destroy the frame on its way.
- Loss: the wire leg can carry nothing more. Both legs end by TCP RST.

`states.py` has the table of states.
"""

from __future__ import annotations

import abc
import logging
import socket
from collections.abc import Callable
from typing import Final

from stcp_proxy.errors import Code, StcpError
from stcp_proxy.protocol import opening
from stcp_proxy.protocol.lifecycle import Phase
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.connection import NO_LEG, Connection
from stcp_proxy.relay.engine import EndReason, RelayEnd, WireLeg
from stcp_proxy.relay.plain_leg import finish_on_close, reset_on_close
from stcp_proxy.relay.states import RELAYING, Event, State
from stcp_proxy.relay.zero_window import LegWatch

_log: Final = logging.getLogger(__name__)


class Ends(Connection):
    """The part of a connection that ends it. A subclass supplies `_send_frame`."""

    __slots__ = ()

    def abort(self, code: Code, text: str) -> None:
        """Send RESET to the peer and a TCP RST to the application. From any thread."""
        self._engine.call(self, lambda: self._reset(EndReason.ABORTED, code, text))

    def fail(self, exc: BaseException) -> None:
        """End this connection for a bug in one of its steps. Other connections go on."""
        self._lose(EndReason.INTERNAL_ERROR, text=f"{type(exc).__name__}: {exc}")

    def drop(self) -> None:
        """Send a TCP RST to both legs at once, because the engine closes."""
        self._lose(EndReason.ABORTED, text="the engine was closed")

    # -- half-close and finish ---------------------------------------------------------------------------------------------

    @property
    def _half_closed(self) -> bool:
        return self._state is State.UP_ENDED or self._phase is Phase.ENDED

    def _half_close(self) -> None:
        """One direction has ended: finish, or set the deadline of a half-closed connection."""
        if not self._finish_if_done():
            self._set_deadline()

    def _finish_if_done(self) -> bool:
        """Finish if both directions ended and every byte was written. Returns whether the connection relays no more."""
        if self._state not in RELAYING:
            return True
        if not self._wire_is_over:
            return False
        if self._give_back is not None:
            self._return_wire(self._give_back)
        if self.plain_left is None:
            self._end = self._summary(EndReason.FINISHED, None, "")
            self._close()
            return True
        return False

    def _return_wire(self, give_back: Callable[[WireLeg], None]) -> None:
        """Give the wire leg back. What is left to do concerns the plain leg alone."""
        wire, self._wire, self._give_back = self._wire, NO_LEG, None
        rest, self.partial = self.partial, b""
        self._wire_ready = self._wire_to_end = False
        if self._watches is not None:
            self._watches[1].restore()
            self._watches = (self._watches[0], LegWatch(NO_LEG))
        self._engine.release(wire)
        self._count_held()
        try:
            give_back(WireLeg(wire, self._sealer.counter, self._opener.counter, rest))
        except Exception:  # a bug of the owner must not end the other connections
            wire.close()
            _log.exception("give_back of a relayed connection raised")

    # -- reset -------------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _send_frame(self, kind: FrameType, plaintext: bytes) -> None:
        """Append one frame to the bytes for the wire leg. Raises StcpError when no frame number is left."""

    def _reset(self, reason: EndReason, code: Code, text: str) -> None:
        """End the connection from this side: RESET to the peer, a TCP RST to the application."""
        if self._state not in RELAYING:
            return
        if self._state is State.WIRE_BROKEN or self._wire is NO_LEG:
            self._lose(reason, code, text)
            return
        self._follow(Event.RESET)
        self._end = self._summary(reason, code, text)
        self._kill(self._plain)
        self.plain_left = None
        self.partial = b""
        self._count_held()
        self._engine.deadlines.set(self, self._engine.now + self._limits.linger)
        try:
            self._send_frame(FrameType.RESET, opening.encode_reason(code, text))
        except StcpError:
            self._close()
            return
        if self._on_end is not None and self._wire_ready:
            self._queue()

    def _plain_failed(self) -> None:
        """A read from the plain leg or a write to it failed."""
        self._reset(EndReason.PLAIN_RESET, Code.PLAIN_RESET, "")

    def _shut_wire(self) -> None:
        """RESET is written: end this side of the wire leg, and continue to read it."""
        try:
            self._wire.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()

    def _drain_wire(self) -> None:
        """Read the wire leg and discard the bytes, until the peer closes it."""
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

    # -- loss and close ----------------------------------------------------------------------------------------------------

    def _lose(self, reason: EndReason, code: int | None = None, text: str = "") -> None:
        """End the connection when the wire leg can carry nothing more: a TCP RST to both legs."""
        if self._state is State.CLOSED:
            return
        if self._end is None:
            self._end = self._summary(reason, code, text)
        if reason is not EndReason.PEER_RESET:
            self._kill(self._wire)
        self._close()

    def _summary(self, reason: EndReason, code: int | None, text: str) -> RelayEnd:
        return RelayEnd(reason, self._sent, self._received, code, text)

    def _kill(self, leg: socket.socket) -> None:
        """Close one leg by a TCP RST."""
        if leg.fileno() < 0:
            return
        self._engine.forget(leg)
        reset_on_close(leg)
        leg.close()

    def _close(self) -> None:
        """Close both legs and tell the owner. The plain leg ends by FIN only when the connection finished."""
        on_end, end = self._on_end, self._end
        if on_end is None or end is None:
            return
        self._follow(Event.CLOSE)
        self._on_end = None
        self._engine.deadlines.discard(self)
        self._engine.stalls.discard(self)
        self._close_legs(finished=end.reason is EndReason.FINISHED)
        self.partial = b""
        self.plain_left = self.wire_left = None
        self._count_held()
        try:
            on_end(end)
        except Exception:  # a bug of the owner must not end the other connections
            _log.exception("on_end of a relayed connection raised")

    def _close_legs(self, *, finished: bool) -> None:
        if finished:
            finish_on_close(self._plain)
        else:
            self._kill(self._plain)
        for leg in (self._plain, self._wire):
            if leg.fileno() >= 0:
                self._engine.forget(leg)
                leg.close()

    # -- the idle deadline -------------------------------------------------------------------------------------------------

    def _limit(self) -> float | None:
        """Seconds that this connection may be idle in its present state; None is no limit."""
        idle, half_close = self._limits.idle, self._limits.half_close
        if not self._half_closed or half_close is None:
            return idle
        return half_close if idle is None else min(idle, half_close)

    def _set_deadline(self) -> None:
        """Set the deadline that follows from the last event."""
        limit = self._limit()
        if limit is not None:
            self._engine.deadlines.set(self, self._active + limit)
