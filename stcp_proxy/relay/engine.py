"""The engine interface: what happens to a connection after the handshake.

An engine adopts both sockets of a connection, with the keys, the counters and the bytes already read. It relays until the
connection ends, and reports the end exactly once. Every engine passes tests/contract/.

Invariants of every engine (PROTOCOL.md section 3):

1. EOF of one leg reaches the other after all bytes; the reverse direction keeps flowing.
2. A reset plain leg is a RESET frame on the wire; RESET from the wire is a TCP RST at the plain leg.
3. If the wire leg ends without FIN, or a frame is malformed, out of place or not authentic, the plain leg gets a TCP RST and
   never a clean EOF. The plain leg only gets authenticated bytes.
4. When a write to one leg would block, reading from the other leg stops. An idle connection owns no buffer.
5. A wire leg is given back only after both FINs have passed it, and then nothing more is read from it or written to it.

What is made for each connection is a NamedTuple: a frozen dataclass costs a call for each field.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stcp_proxy.errors import Code, EndReason
from stcp_proxy.protocol.secret import Secret

__all__ = ["DirectionKey", "EndReason", "Engine", "Handover", "Relay", "RelayEnd", "RelayLimits", "WireLeg"]


class DirectionKey(NamedTuple):
    """One direction's cipher state at a frame boundary.

    Attributes:
        key: the AES-256-GCM key in force for the frame *before* `counter`. At a positive multiple of 2^20, the rekey before
            frame `counter` is still to be made.
        counter: number of the next frame.
    """

    key: Secret
    counter: int


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Deadlines of a relayed connection, in seconds; None is no deadline.

    Attributes:
        idle: no byte in either direction for this long.
        half_close: the same, while one direction has ended.
        linger: how long the wire leg stays open after a RESET frame, so that TCP does not destroy the frame on its way.
    """

    idle: float | None = None
    half_close: float | None = 900.0
    linger: float = 2.0


class WireLeg(NamedTuple):
    """A wire leg that an engine gives back after both FINs (PROTOCOL.md section 7). The receiver owns the socket.

    Attributes:
        socket: open, non-blocking, and watched by no engine.
        sent: counter of the direction plain to wire: number of the next frame.
        received: counter of the direction wire to plain.
        rest: ciphertext already read from the wire leg, after the peer's FIN.
    """

    socket: socket.socket
    sent: int
    received: int
    rest: bytes


class Handover(NamedTuple):
    """A connection at a frame boundary, handed to an engine. The engine owns both sockets from here on.

    Attributes:
        plain: connected stream socket to the application, non-blocking.
        wire: connected stream socket to the peer, non-blocking.
        send: cipher state of the direction plain to wire.
        receive: cipher state of the direction wire to plain.
        wire_bytes: ciphertext already read from the wire leg, after the last opened frame; at most two frames.
        limits: deadlines.
        give_back: takes the wire leg back; None where the engine closes it. Called at most once, before `on_end` and in the same
            thread, as soon as both FINs have passed the wire leg. Bytes for the application may still wait, in the engine or in
            the plain leg's socket. It must not block. An engine whose `keeps_legs` is False closes the leg instead.
    """

    plain: socket.socket
    wire: socket.socket
    send: DirectionKey
    receive: DirectionKey
    wire_bytes: bytes = b""
    limits: RelayLimits = RelayLimits()
    give_back: Callable[[WireLeg], None] | None = None


class RelayEnd(NamedTuple):
    """The end of a relayed connection.

    Attributes:
        reason: why the connection ended.
        bytes_to_wire: application bytes read from the plain leg and sealed.
        bytes_to_plain: authenticated application bytes that the plain leg's socket took.
        code: code of the RESET that was sent or received; None without a RESET.
        text: text of the RESET, or a description of the failure.
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
        """Name of the engine that carries the connection."""

    @property
    def why_engine(self) -> str:
        """Why a fallback engine carries the connection; empty without a fallback."""

    def counts(self) -> tuple[int, int]:
        """Application bytes so far: (plain to wire, wire to plain)."""

    def abort(self, code: Code, text: str) -> None:
        """Send RESET with `code` and `text` to the peer and a TCP RST to the application, from any thread; idempotent."""


class Engine(Protocol):
    """Carries connections. `adopt`, and `abort` of a relay, may be called from any thread."""

    @property
    def name(self) -> str:
        """Name of the engine in logs and status."""

    @property
    def keeps_legs(self) -> bool:
        """Whether the engine gives wire legs back, so that they can carry the next connection."""

    def start(self) -> None:
        """Allocate descriptors and a thread. Raises OSError when the process is out of them."""

    def adopt(self, handover: Handover, on_end: Callable[[RelayEnd], None]) -> Relay:
        """Carry a connection until it ends.

        Args:
            handover: the connection. The engine owns its sockets from now on.
            on_end: called exactly once, after both legs are closed or the wire leg was given back, in a thread of the engine. It
                must not block.
        """

    def close(self) -> None:
        """Send a TCP RST to every leg and release all resources."""
