"""One connection inside the user-space engine: two legs, two directions, from handover to close.

Epoll is edge-triggered. Each leg is registered once, for every event, and a ready flag remembers that the leg may have bytes. A
read that does not fill the buffer has emptied the socket, so the flag is cleared without a second read. After an end, an error or
urgent data no further edge follows: the leg is then read until it would block.

One step moves at most one buffer. A connection with more to do queues itself behind all others. `connection.py` lists the parts
of a connection.
"""

from __future__ import annotations

import select
from typing import Final

from stcp_proxy.relay.connection import pending_error
from stcp_proxy.relay.states import RELAYING, State
from stcp_proxy.relay.timeouts import Timeouts

INTEREST: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLHUP | select.EPOLLERR
_TO_THE_END: Final = select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLHUP | select.EPOLLERR
_OUT: Final = select.EPOLLOUT
_ERROR: Final = select.EPOLLERR
_JUST_BYTES: Final = select.EPOLLIN | select.EPOLLOUT
"""The mask of a leg that has bytes to read, and no end, error or urgent data."""


class Duplex(Timeouts):
    """A connection that the pump carries; the `Relay` that its owner holds.

    All methods but `counts` and `abort` belong to the engine's thread.
    """

    __slots__ = ()

    engine: Final = "python"
    why_engine: Final = ""

    def begin(self) -> None:
        """Open the frames that came with the handover. Epoll reports the bytes in the legs."""
        self._active = self._engine.now
        self._set_deadline()
        if self.partial:
            self._open_frames(len(self.partial), into_scratch=True)

    def on_plain(self, mask: int) -> None:
        """Act on an event of the plain leg: `mask` is epoll's."""
        self._active = self._engine.now
        if mask & _OUT and self.plain_left is not None:
            self._flush_plain()
        if mask == _JUST_BYTES:
            if self._queued and self._plain_ready:
                return  # it has its turn behind the others
            if self._reads_plain:
                self._up()
            else:
                self._plain_ready = True
        elif mask & _READABLE and self._state in RELAYING:
            self._plain_news(mask)

    def _plain_news(self, mask: int) -> None:
        """The plain leg has bytes, or reports its end, an error or urgent data."""
        if mask & _TO_THE_END:
            self._plain_to_end = True
            # Unread bytes hide an error. If nothing reads them now, ask for the error.
            if mask & _ERROR and not self._reads_plain and pending_error(self._plain):
                self._plain_failed()
                return
        self._plain_ready = True
        if self._reads_plain:
            self._up()

    @property
    def _reads_plain(self) -> bool:
        """Whether the plain leg may be read now."""
        return self.wire_left is None and self._state is State.OPEN

    def on_wire(self, mask: int) -> None:
        """Act on an event of the wire leg: `mask` is epoll's."""
        self._active = self._engine.now
        if mask & _OUT and self.wire_left is not None:
            self._flush_wire()
        if mask == _JUST_BYTES and self.plain_left is None and self._state in RELAYING:
            if not (self._queued and self._wire_ready):  # else it has its turn behind the others
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
        """Continue after a full buffer or a full turn."""
        self._queued = False
        self._active = self._engine.now
        if self._plain_ready and self._reads_plain:
            self._up()
        if self._state is State.RESETTING:
            if self._wire_ready:
                self._drain_wire()
        elif self._wire_ready and self.plain_left is None and self._state in RELAYING:
            self._down()
