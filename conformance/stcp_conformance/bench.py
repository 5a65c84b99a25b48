"""The implementation under test between the two ends that the kit plays: the other proxy, and the application."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from stcp_conformance.frames import Type
from stcp_conformance.greeting import Greeter, greeter
from stcp_conformance.program import Secrets
from stcp_conformance.sockets import EOF, RST, Deviation, Plain, Server, dial
from stcp_conformance.suites import SUITES
from stcp_conformance.wire import Wire


@dataclasses.dataclass
class Link:
    """An open connection: the kit's end of the wire leg and its end of the plain leg.

    Attributes:
        wire: the wire leg.
        plain: the application's end.
        attributes: the plaintext of the implementation's OPEN or ACCEPT.
    """

    wire: Wire
    plain: Plain
    attributes: bytes = b""

    def talk(self, word: bytes = b"conformance") -> None:
        """Bytes both ways."""
        self.wire.send(Type.DATA, word)
        self.plain.expect(word)
        self.plain.send(word[::-1])
        self.wire.expect_data(word[::-1])

    def expect_fault(self) -> str:
        """The implementation refuses a frame: no byte and an RST at the plain leg; the wire leg ends."""
        self.plain.expect_end(RST)
        return f"plain leg: RST; wire leg: {self.wire.expect_fault()}"

    def finish(self) -> None:
        """Both FINs."""
        self.wire.send(Type.FIN)
        self.plain.expect_end(EOF)
        self.plain.finish()
        if self.wire.expect(Type.FIN):
            raise Deviation("FIN with a plaintext")


class Bench:
    """Everything that a case uses.

    Args:
        role: the implementation's role.
        suite: the number of the suite.
        secrets: the keys.
        server: where the implementation dials to: the application (its role is responder) or the wire leg (initiator).
        port: where the implementation listens.
        seconds: limit of each wait.
    """

    def __init__(self, role: str, suite: int, secrets: Secrets, server: Server, port: int, seconds: float) -> None:
        self.role, self.suite, self.secrets, self.server, self.port, self.seconds = (
            role,
            SUITES[suite],
            secrets,
            server,
            port,
            seconds,
        )
        self.is_responder = role == "responder"
        self._streams: list[Plain] = []

    def greeter(self, **changes: Any) -> Greeter:
        """What the kit brings to a handshake, with changes."""
        return dataclasses.replace(greeter(self.suite.number, self.secrets), **changes)

    def keep(self, stream: Plain) -> Plain:
        """Close the stream after the case."""
        self._streams.append(stream)
        return stream

    def clear(self) -> None:
        """Close what the last case left."""
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()
        self._streams.clear()
        self.server.drain()

    # -- the implementation is the responder

    def dial(self) -> Plain:
        """A wire leg without a handshake."""
        return self.keep(dial(self.port, self.seconds, "wire leg"))

    def target(self) -> Plain:
        """The connection that the responder dials."""
        return self.keep(self.server.accept())

    def dialled(self) -> list[Plain]:
        """The connections that the responder has dialled and nobody took."""
        found = []
        with contextlib.suppress(Deviation):
            while True:
                found.append(self.keep(self.server.accept(0)))
        return found

    def expect_no_dial(self) -> None:
        if self.server.drain():
            raise Deviation("the target was dialled")

    def initiate(self, **changes: Any) -> Wire:
        """A wire leg after the handshake."""
        return self.greeter(**changes).initiate(self.dial())

    # -- the implementation is the initiator

    def start(self) -> tuple[Plain, Plain]:
        """An application connects. Returns the plain leg and the new wire leg."""
        plain = self.application()
        return plain, self.accept()

    def application(self) -> Plain:
        return self.keep(dial(self.port, self.seconds, "plain leg"))

    def accept(self) -> Plain:
        return self.keep(self.server.accept())

    def respond(self, **changes: Any) -> tuple[Plain, Wire, bytes]:
        """Up to the implementation's OPEN. Returns the plain leg, the wire leg and the plaintext of OPEN."""
        plain, stream = self.start()
        wire = self.greeter(**changes).respond(stream)
        return plain, wire, wire.expect(Type.OPEN)

    # -- either

    def open(self, attributes: bytes = b"", **changes: Any) -> Link:
        """An open connection. `attributes` is the plaintext of the kit's OPEN or ACCEPT."""
        if self.is_responder:
            wire = self.initiate(**changes)
            wire.send(Type.OPEN, attributes)
            plain = self.target()
            return Link(wire, plain, wire.expect(Type.ACCEPT))
        plain, wire, opening = self.respond(**changes)
        wire.send(Type.ACCEPT, attributes)
        return Link(wire, plain, opening)
