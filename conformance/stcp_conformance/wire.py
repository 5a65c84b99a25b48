"""The kit's end of a wire leg after the handshake."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag

from stcp_conformance.frames import HEADER, Code, Direction, Type, check_content
from stcp_conformance.sockets import EOF, RST, CutByReset, Deviation, Plain

FIRST = (Type.OPEN, Type.ACCEPT, Type.REJECT)


@dataclass(frozen=True)
class Frame:
    kind: Type
    plaintext: bytes

    def __str__(self) -> str:
        return f"{self.kind.name}({self.plaintext[:16].hex()}{'…' if len(self.plaintext) > 16 else ''})"


class Wire:
    """Frames over a socket. Every frame of the implementation is checked against sections 2 and 4.

    Args:
        stream: the wire leg.
        sends: the kit's direction.
        receives: the implementation's direction.
        h: the final handshake hash.

    Attributes:
        idle: whether a connection has ended in order, so that the next first frame in each direction comes with a new key.
    """

    def __init__(self, stream: Plain, sends: Direction, receives: Direction, h: bytes) -> None:
        self.stream, self.sends, self.receives, self.h = stream, sends, receives, h
        self.idle = False

    def seal(self, kind: int, plaintext: bytes = b"", *, reserved: int = 0) -> bytes:
        """A frame of the kit. On an idle leg, a first frame takes a new key."""
        if self.idle and kind in FIRST:
            self.sends.rekey()
        return self.sends.seal(kind, plaintext, reserved=reserved)

    def send(self, kind: int, plaintext: bytes = b"") -> None:
        self.stream.send(self.seal(kind, plaintext))

    def receive(self) -> Frame | str:
        """The next frame, EOF or RST.

        Raises:
            Deviation: nothing came, or a frame that the format does not allow.
        """
        try:
            return self._receive()
        except CutByReset:
            return RST

    def _receive(self) -> Frame | str:
        first = self.stream.some_of(HEADER)
        if isinstance(first, str):
            return first
        try:
            kind = Type(first[0])
        except ValueError:
            raise Deviation(f"wire leg: a frame of unknown type {first[0]}") from None
        length = int.from_bytes(first[2:], "big")
        if first[1] or not 16 <= length <= 65532:
            raise Deviation(f"wire leg: a frame header {first.hex()}")
        body = self.stream.exactly(length)
        if self.idle and kind in FIRST:
            self.receives.rekey()
        try:
            plaintext = self.receives.open(first + body)
            check_content(kind, plaintext)
        except InvalidTag:
            raise Deviation(f"wire leg: a {kind.name} frame whose tag fails") from None
        except ValueError as exc:
            raise Deviation(f"wire leg: {kind.name}: {exc}") from None
        return Frame(kind, plaintext)

    def expect(self, kind: Type) -> bytes:
        """The plaintext of the next frame, which must be of this type."""
        found = self.receive()
        if not isinstance(found, Frame) or found.kind is not kind:
            raise Deviation(f"wire leg: {found}, where {kind.name} had to come")
        return found.plaintext

    def expect_data(self, data: bytes) -> None:
        """Exactly these bytes, in any number of DATA frames."""
        found = b""
        while len(found) < len(data):
            found += self.expect(Type.DATA)
        if found != data:
            raise Deviation(f"wire leg: other bytes than were sent: {found[:40]!r}")

    def rest(self) -> tuple[list[Frame], str]:
        """All frames up to the end, and the end: EOF or RST."""
        frames = []
        while isinstance(found := self.receive(), Frame):
            frames.append(found)
        return frames, found

    def expect_end(self, *codes: int, silent: bool = True, ends: tuple[str, ...] = (EOF, RST)) -> str:
        """Read to the end of the leg, before which DATA, FIN and one RESET with one of these codes may come.

        Args:
            codes: the codes that RESET may have.
            silent: whether the leg may end without RESET.
            ends: the ends that the stream may have.
        """
        frames, end = self.rest()
        frames = [frame for frame in frames if frame.kind not in (Type.DATA, Type.FIN)]
        seen = ", ".join(map(str, frames)) or "no frame"
        if end not in ends:
            raise Deviation(f"wire leg: {seen} and {end}, where {' or '.join(ends)} had to come")
        wrong = len(frames) > 1 or (not frames and not silent)
        if wrong or any(
            frame.kind is not Type.RESET or int.from_bytes(frame.plaintext[:2], "big") not in codes for frame in frames
        ):
            raise Deviation(
                f"wire leg: {seen} and {end}, where RESET with {', '.join(f'code {int(code)}' for code in codes)} may come"
            )
        return f"{seen} and {end}"

    def expect_fault(self) -> str:
        """The end after a frame that the format does not allow: at most RESET with "protocol error" comes before it."""
        return self.expect_end(Code.PROTOCOL_ERROR)

    def expect_closed(self) -> str:
        """The end in order: no further frame."""
        return self.stream.expect_end(EOF, RST)
