"""A relay on the wire leg that parses the traffic of two proxies. It can change one bit or cut the connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Literal

from harness.sockets import Target, connect, read_exactly
from stcp_proxy.protocol.wire import HEADER_LEN, MESSAGE_LENGTH_LEN, PROLOGUE_LEN

Way = Literal["forth", "back"]
"""The direction: forth is from the initiator to the responder, back is the other one."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit to change.

    Attributes:
        way: the direction.
        unit: the number of the message in this direction: 0 is the handshake message (forth with the prologue), 1 is the first
            frame.
        at: the index of the byte in the message; a negative index counts from the end.
        bit: the index of the bit, 0 to 7.
    """

    way: Way
    unit: int
    at: int
    bit: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """The point at which the connection is cut in both directions, with a clean end of TCP.

    Attributes:
        way, unit: as in `Flip`.
        at: the number of bytes of this message that are still passed on.
    """

    way: Way
    unit: int
    at: int


class Wire:
    """A relay in front of a listening side. It parses every connection into messages and frames.

    Args:
        address: the address of the listening side.

    Attributes:
        harm: the change to make in the next connections, or None.
        done: the number of changes made.
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
        """Pass messages on, up to EOF. When one side breaks, end the other side."""
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
    """The next handshake message or frame; fewer bytes when the connection ends."""
    if number == 0:
        ahead = (PROLOGUE_LEN if way == "forth" else 0) + MESSAGE_LENGTH_LEN
        at = ahead - MESSAGE_LENGTH_LEN
    else:
        ahead, at = HEADER_LEN, HEADER_LEN - 2
    head = read_exactly(source, ahead)
    if len(head) < ahead:
        return head
    return head + read_exactly(source, int.from_bytes(head[at:], "big"))
