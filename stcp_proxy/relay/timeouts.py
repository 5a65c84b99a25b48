"""What a relayed connection does when time has passed: idle, half-close and linger deadlines, and looks at stalled legs."""

from __future__ import annotations

import select

from stcp_proxy.errors import Code
from stcp_proxy.protocol.lifecycle import Phase
from stcp_proxy.relay.connection import NO_LEG
from stcp_proxy.relay.engine import EndReason
from stcp_proxy.relay.plain_to_wire import PlainToWire
from stcp_proxy.relay.states import RELAYING, State
from stcp_proxy.relay.wire_to_plain import WireToPlain
from stcp_proxy.relay.zero_window import LegWatch, Look


class Timeouts(PlainToWire, WireToPlain):
    """The part of a connection that acts when time has passed."""

    __slots__ = ()

    # -- deadlines ---------------------------------------------------------------------------------------------------------

    def on_deadline(self) -> None:
        """The deadline set last has passed: it may have moved since."""
        if self._state is State.RESETTING:
            self._end_linger()
            return
        limit = self._limit()
        if limit is None:
            return
        if self._active + limit > self._engine.now:
            self._set_deadline()
        elif self._has_news():
            self._active = self._engine.now
            self._queue()
            self._set_deadline()
            self._flush_plain()
            self._flush_wire()
        else:
            self._expire(limit)

    def _end_linger(self) -> None:
        """The peer has not closed the wire leg in time after RESET: close it."""
        self._flush_wire()
        if self.wire_left is not None:
            self._kill(self._wire)
        self._close()

    def _expire(self, limit: float) -> None:
        """Reset the connection: it was idle for `limit` seconds."""
        if self._half_closed and self._limits.half_close is not None and limit == self._limits.half_close:
            self._reset(EndReason.HALF_CLOSE_TIMEOUT, Code.IDLE_TIMEOUT, f"half-closed and idle for {limit:g} s")
        else:
            self._reset(EndReason.IDLE_TIMEOUT, Code.IDLE_TIMEOUT, f"idle for {limit:g} s")

    def _has_news(self) -> bool:
        """Poll both legs for bytes that this connection would move. After a pause of the process, epoll has not reported them."""
        plain, wire = self._plain.fileno(), self._wire.fileno()
        poll = select.poll()
        poll.register(plain, _awaited(reads=self._state is State.OPEN and self.wire_left is None, left=self.plain_left))
        if self._wire is not NO_LEG:
            poll.register(wire, _awaited(reads=self._phase is Phase.STREAM and self.plain_left is None, left=self.wire_left))
        found = dict(poll.poll(0))
        self._plain_ready |= bool(found.get(plain, 0) & select.POLLIN)
        self._wire_ready |= bool(found.get(wire, 0) & select.POLLIN)
        return any(mask & (select.POLLIN | select.POLLOUT) for mask in found.values())

    # -- stalled legs ------------------------------------------------------------------------------------------------------

    def watch_if_active(self, since: float) -> None:
        """Look at the legs soon if this connection had an event since the time `since`."""
        if self._active >= since and not self._watched:
            self._watch_stall()

    def on_stall_check(self) -> None:
        """Look at the bytes that wait in the legs; `zero_window` gives the reason."""
        self._watched = False
        if self._state not in RELAYING:
            return
        plain, wire = self._look()
        if plain is Look.DEAD:
            self._plain_failed()
        elif wire is Look.DEAD:
            self._lose(EndReason.TRUNCATED, text="the peer stopped answering")
        elif Look.WAITING in (plain, wire):
            self._watch_stall()
        else:
            self._watches = None

    def _look(self) -> tuple[Look, Look]:
        """Look at the plain leg and at the wire leg. A wire leg that is broken, or was given back, is at rest."""
        plain, wire = self._watches = self._watches or (LegWatch(self._plain), LegWatch(self._wire))
        now, at_rest = self._engine.now, self._state is State.WIRE_BROKEN or self._wire is NO_LEG
        return plain.look(now), Look.AT_REST if at_rest else wire.look(now)


def _awaited(*, reads: bool, left: bytes | None) -> int:
    """Mask for poll: whether the leg is read, and whether bytes are left to write to it."""
    return (select.POLLIN if reads else 0) | (select.POLLOUT if left is not None else 0)
