"""The engine interface: what happens to a connection after the handshake.

An engine adopts both sockets of a connection together with the keys, counters and bytes that are already read, and relays until
the connection ends. The tunnel hears of it again exactly once. Every engine passes tests/contract/.

Laws (PROTOCOL.md section 3), for every engine:

1. EOF of one leg reaches the other after all bytes; the reverse direction keeps flowing.
2. A reset plain leg is a RESET frame on the wire; RESET from the wire is a TCP RST at the plain leg.
3. The wire leg's end without FIN, a frame that is malformed, out of place or not authentic: the plain leg gets a TCP RST, never
   a clean EOF, and not one byte that did not authenticate.
4. When one leg would block, reading from the other stops. A connection at rest owns no buffer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from stcp_proxy.errors import Code, EndReason
from stcp_proxy.protocol.secret import Secret

__all__ = ["DirectionKey", "EndReason", "Engine", "Handover", "Relay", "RelayEnd", "RelayLimits"]


@dataclass(frozen=True, slots=True)
class DirectionKey:
    """One direction's cipher state at a frame boundary.

    Attributes:
        key: the AES-256-GCM key in force for the frame *before* `counter`. When `counter` is a positive multiple of 2^20 the
            rekey that precedes it is still to be made.
        counter: n of the next frame.
    """

    key: Secret
    counter: int


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Deadlines of a relayed connection, in seconds; None is no deadline.

    Attributes:
        idle: no byte in either direction for this long.
        half_close: the same, while one direction has ended.
        linger: how long the wire leg is kept after a RESET frame, so that TCP does not destroy the frame on its way.
    """

    idle: float | None = None
    half_close: float | None = 900.0
    linger: float = 2.0


@dataclass(frozen=True, slots=True)
class Handover:
    """A connection at a frame boundary, handed to an engine. The engine owns both sockets from here on.

    Attributes:
        plain: connected stream socket to the application, non-blocking.
        wire: connected stream socket to the peer, non-blocking.
        send: cipher state of the direction plain to wire.
        receive: cipher state of the direction wire to plain.
        wire_bytes: ciphertext already read from the wire leg, behind the last opened frame; at most two frames' worth.
        limits: deadlines.
    """

    plain: socket.socket
    wire: socket.socket
    send: DirectionKey
    receive: DirectionKey
    wire_bytes: bytes = b""
    limits: RelayLimits = RelayLimits()


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """The end of a relayed connection.

    Attributes:
        reason: why.
        bytes_to_wire: application bytes read from the plain leg and sealed.
        bytes_to_plain: application bytes that authenticated and were taken by the plain leg's socket.
        code: RESET's code, sent or received; None where there was none.
        text: RESET's text, or words about the failure.
    """

    reason: EndReason
    bytes_to_wire: int
    bytes_to_plain: int
    code: int | None = None
    text: str = ""


class Relay(Protocol):
    """A connection that an engine carries."""

    @property
    def engine(self) -> str:
        """Name of the engine that carries it."""

    @property
    def why_engine(self) -> str:
        """Why another engine carries it than the one it was given to; empty where it did not fall back."""

    def counts(self) -> tuple[int, int]:
        """Application bytes so far: (plain to wire, wire to plain)."""

    def abort(self, code: Code, text: str) -> None:
        """Send RESET with `code` and `text` to the peer and a TCP RST to the application, from any thread; idempotent."""


class Engine(Protocol):
    """Carries connections. Thread-safe: `adopt` and `abort` may be called from any thread."""

    @property
    def name(self) -> str:
        """What logs and status call it."""

    def start(self) -> None:
        """Take up resources (descriptors, a thread). Raises OSError when there are none."""

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        """Carry a connection until it ends.

        Args:
            handover: the connection; its sockets belong to the engine from now on.
            on_end: called exactly once, with both legs closed, from a thread of the engine's: it must not block.
        """

    def close(self) -> None:
        """Abort what is left without ceremony and give up all resources."""
