"""A relay on the wire between two proxies that reads along and can change one bit."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Literal

from harness.sockets import Target, connect, read_exactly
from stcp_proxy.protocol.wire import HEADER_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN

Way = Literal["forth", "back"]
"""From the initiator to the responder, or the other way."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit to turn over.

    Attributes:
        way: in which direction.
        unit: which message of that direction: 0 is the handshake message (forth: the prologue included), 1 the first frame.
        at: byte in it, negative from its end.
        bit: 0 to 7.
    """

    way: Way
    unit: int
    at: int
    bit: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the connection is cut, both ways, with a clean TCP end.

    Attributes:
        way, unit: as in `Flip`.
        at: how many bytes of it still come through.
    """

    way: Way
    unit: int
    at: int


class Wire:
    """Stands before a listening side; every connection through it is parsed into messages and frames as they pass.

    Args:
        address: of the listening side.

    Attributes:
        harm: what to do to the next connections, or None.
        done: how often it was done.
    """

    def __init__(self, address: tuple[str, int] | str) -> None:
        self._address = address
        self.harm: Flip | Cut | None = None
        self.done = 0
        self._front = Target(self._serve)
        self.to = self._front.to

    def close(self) -> None:
        self._front.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self, left: socket.socket) -> None:
        harm = self.harm
        with connect(self._address) as right:
            for sock in (left, right):
                sock.settimeout(60)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pass, args=(right, left, harm, "back"), daemon=True)
            back.start()
            self._pass(left, right, harm, "forth")
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket, harm: Flip | Cut | None, way: Way) -> None:
        """Hand messages on, up to EOF; a break of one side is handed on as its end."""
        number = 0
        try:
            while unit := _read_unit(source, way, number):
                if harm is not None and (harm.way, harm.unit) == (way, number):
                    self.done += 1
                    if isinstance(harm, Cut):
                        sink.sendall(unit[: harm.at])
                        source.shutdown(socket.SHUT_RDWR)
                        break
                    unit = _flipped(unit, harm)
                sink.sendall(unit)
                number += 1
        except OSError:
            pass
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _flipped(unit: bytes, flip: Flip) -> bytes:
    changed = bytearray(unit)
    changed[flip.at] ^= 1 << flip.bit
    return bytes(changed)


def _read_unit(source: socket.socket, way: Way, number: int) -> bytes:
    """The next handshake message or frame, or less at the end."""
    if number == 0:
        ahead = (PROLOGUE_LEN if way == "forth" else 0) + MESSAGE_LENGTH_LEN
        at = ahead - MESSAGE_LENGTH_LEN
    else:
        ahead, at = HEADER_LEN, HEADER_LEN - 2
    head = read_exactly(source, ahead)
    if len(head) < ahead:
        return head
    return head + read_exactly(source, int.from_bytes(head[at:], "big"))
