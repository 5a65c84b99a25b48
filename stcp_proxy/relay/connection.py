"""The state of one relayed connection, and what it needs of the engine that drives it.

`Connection` holds every slot of a connection, because the fast path in C reads and writes them by offset. Its subclasses add
methods only:

    Connection          state                                   (this file)
    Ends                finish, reset, lose, close              (ends.py)
    PlainToWire         read, seal, send                        (plain_to_wire.py)
    WireToPlain         receive, open, deliver                  (wire_to_plain.py)
    Timeouts            act when time has passed                (timeouts.py)
    Duplex              act when a leg has news                 (duplex.py)

The engine's `Scratch` has two buffers that all connections share. A connection owns bytes in two cases only: after a short write
(`wire_left`, `plain_left`), and while it holds received frames that are not opened yet (`partial`).

Invariants:

- A ready flag (`_plain_ready`, `_wire_ready`) is set while its leg may have bytes to read. Epoll is edge-triggered: nothing else
  remembers it.
- After a short write the ready flag of the reading leg stays set, and nothing is read from that leg until the remainder is
  written. This is the back-pressure, and it bounds the memory.
"""

from __future__ import annotations

import abc
import collections
import math
import socket
from collections.abc import Callable
from typing import Final, Protocol

from stcp_proxy.protocol.frames import Opener, Scratch, Sealer
from stcp_proxy.protocol.lifecycle import Phase
from stcp_proxy.relay.deadlines import Deadlines, Timed
from stcp_proxy.relay.engine import Handover, RelayEnd, WireLeg
from stcp_proxy.relay.fast_path import Lane
from stcp_proxy.relay.plain_leg import reset_on_close
from stcp_proxy.relay.states import NEXT, Event, State
from stcp_proxy.relay.turns import BULK_FOR, SMALL, Busy
from stcp_proxy.relay.zero_window import LegWatch

NO_LEG: Final = socket.socket()
"""Stands for a wire leg that was given back: a closed socket."""
NO_LEG.close()
STALL_CHECK: Final = 1.0
"""Seconds between two looks at legs with waiting bytes; well below any TCP_USER_TIMEOUT."""


class Host(Protocol):
    """What a connection needs of the engine that drives it. All methods but `call` belong to the engine's thread."""

    now: float
    """Time of the batch under way, seconds."""
    lane: Lane | None
    """The fast path in C; None where it is not used."""

    @property
    def read_size(self) -> int:
        """Most bytes of one read."""

    def note_small(self) -> None:
        """Note that a small connection is active."""

    @property
    def scratch(self) -> Scratch:
        """The two buffers that all connections share."""

    @property
    def again(self) -> collections.deque[Busy]:
        """Connections that have more to do, in turn."""

    @property
    def deadlines(self) -> Deadlines[Timed]:
        """When to call `on_deadline`."""

    @property
    def stalls(self) -> Deadlines[Connection]:
        """When to call `on_stall_check`."""

    def call(self, duplex: Connection, function: Callable[[], None]) -> bool:
        """Run `function` for `duplex` in the engine's thread. Returns False when the engine is closed."""

    def forget(self, leg: socket.socket) -> None:
        """Act on no further event of a leg that is about to be closed."""

    def release(self, leg: socket.socket) -> None:
        """Watch a leg no more: it stays open, and another owner takes it."""

    def hold(self, difference: int) -> None:
        """Count `difference` more bytes that a connection holds for a stalled reader; negative for fewer."""


class Connection(abc.ABC):
    """State of a connection, with the steps that every part of it uses.

    Args:
        host: the engine that drives the connection.
        handover: sockets, keys, counters and limits.
        on_end: called once, when both legs are closed.
    """

    __slots__ = (
        "_active",
        "_bulk_at",
        "_end",
        "_engine",
        "_give_back",
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

    def __init__(self, host: Host, handover: Handover, on_end: Callable[[RelayEnd], None]) -> None:
        self._engine = host
        self._plain: socket.socket = handover.plain
        reset_on_close(self._plain)
        self._wire: socket.socket = handover.wire
        self._sealer = Sealer(handover.send.key, handover.send.counter)
        self._opener = Opener(handover.receive.key, handover.receive.counter)
        self._limits = handover.limits
        self._on_end: Callable[[RelayEnd], None] | None = on_end
        self._give_back: Callable[[WireLeg], None] | None = handover.give_back
        """Takes the wire leg back after both FINs; None where it is closed, and after it was given back."""
        self._end: RelayEnd | None = None
        """How the connection ended; set when it enters RESETTING or CLOSED."""
        self._state = State.OPEN
        self._phase = Phase.STREAM
        """Which frames may come from the wire leg."""
        self._why_broken = ""
        """Why a write to the wire leg failed; set in WIRE_BROKEN."""
        self._plain_ready = self._wire_ready = True
        self._plain_to_end = self._wire_to_end = False
        """Epoll announced an end, an error or urgent data. No further edge follows: read the leg until it would block."""
        self._queued = False
        """Whether the connection stands in the engine's queue `again`."""
        self._sent = self._received = 0
        """Application bytes so far, by direction."""
        self._active = 0.0
        """Time of the last event, seconds."""
        self._bulk_at = -math.inf
        """Time of the last read that was not small, seconds."""
        self._held = 0
        """Bytes that the engine counts as held here."""
        self._watched = False
        """Whether a look at the legs is due."""
        self._watches: tuple[LegWatch, LegWatch] | None = None
        """Of the plain and the wire leg; None while nothing waits in either."""
        self.partial = handover.wire_bytes
        """Ciphertext that was received and is not opened yet: whole frames, then the beginning of one."""
        self.plain_left: bytes | None = None
        """Plaintext that the plain leg did not take yet."""
        self.wire_left: bytes | None = None
        """Frames that the wire leg did not take yet."""

    @abc.abstractmethod
    def step(self) -> None:
        """Continue after a full buffer or a full turn."""

    @abc.abstractmethod
    def on_deadline(self) -> None:
        """The deadline set last has passed."""

    @abc.abstractmethod
    def on_stall_check(self) -> None:
        """It is time to look at the bytes that wait in the legs."""

    @abc.abstractmethod
    def fail(self, exc: BaseException) -> None:
        """End this connection for a bug in one of its steps."""

    def counts(self) -> tuple[int, int]:
        """Application bytes so far: (plain to wire, wire to plain). From any thread."""
        return self._sent, self._received

    @property
    def legs(self) -> tuple[socket.socket, socket.socket]:
        """Plain and wire leg."""
        return self._plain, self._wire

    @property
    def _wire_is_over(self) -> bool:
        """Whether both FINs have passed the wire leg: this side's is written, and the peer's was read."""
        return self._state is State.UP_ENDED and self.wire_left is None and self._phase is Phase.ENDED

    def _follow(self, event: Event) -> None:
        self._state = NEXT[self._state, event]

    @property
    def is_bulk(self) -> bool:
        """See `Busy.is_bulk`."""
        return self._engine.now - self._bulk_at < BULK_FOR

    def _queue(self) -> None:
        """Take a further turn, behind all other connections."""
        if not self._queued:
            self._queued = True
            self._engine.again.append(self)

    def _note_read(self, size: int) -> None:
        """Note the size of a read: small connections should not wait for the bulk of others, nor for its acknowledgements."""
        now = self._engine.now
        if size >= SMALL:
            self._bulk_at = now
        elif size and now - self._bulk_at > BULK_FOR:
            self._engine.note_small()

    def _count_held(self) -> None:
        """Tell the engine how many bytes wait here for a reader, the received frames behind them included."""
        held = len(self.wire_left or b"")
        if self.plain_left is not None:
            held += len(self.plain_left) + len(self.partial)
        if held != self._held:
            self._engine.hold(held - self._held)
            self._held = held

    def _watch_stall(self) -> None:
        """Look at the legs in a moment: bytes wait."""
        self._watched = True
        self._engine.stalls.set(self, self._engine.now + STALL_CHECK)


def pending_error(leg: socket.socket) -> bool:
    """Whether an error waits at `leg`, such as a TCP RST. After EOF, recv does not report it."""
    return leg.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def words(exc: OSError) -> str:
    """A failure of the wire leg as text for `RelayEnd`."""
    return f"the wire leg broke: {exc.strerror or exc}"
