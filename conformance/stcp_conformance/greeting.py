"""The kit's side of a handshake over a stream, as initiator and as responder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag

from stcp_conformance import credential
from stcp_conformance.frames import Direction
from stcp_conformance.noise import Handshake, KeyPair
from stcp_conformance.program import KIT_NAME, Secrets
from stcp_conformance.sockets import Deviation, Plain
from stcp_conformance.suites import SUITES, Suite
from stcp_conformance.wire import Wire


@dataclass
class Greeter:
    """What the kit brings to a handshake. A hostile case changes it.

    Attributes:
        suite: the suite.
        secrets: the keys of both sides.
        static: the kit's key pair.
        psk: the shared secret.
        options: further arguments of `Handshake`.
        credential: the credential to present. [default: a valid one]
    """

    suite: Suite
    secrets: Secrets
    static: KeyPair
    psk: bytes
    options: dict[str, Any] = field(default_factory=dict)
    credential: bytes | None = None

    def handshake(self, *, initiator: bool, **more: Any) -> Handshake:
        remote = self.secrets.implementation.public if initiator and self.suite.knows_responder else None
        options = {
            "static": self.static if self.suite.static else None,
            "remote_static": remote,
            "psk": self.psk if self.suite.psk else None,
        }
        return Handshake(self.suite, initiator=initiator, **(options | self.options | more))

    def payload(self, role: int) -> bytes:
        """The kit's credential; without bytes in a suite without credentials."""
        if not self.suite.certificates:
            return b""
        if self.credential is not None:
            return self.credential
        return self.secrets.authority.issue(KIT_NAME).credential(role, self.static.public)

    def first(self, handshake: Handshake) -> bytes:
        """Everything up to the end of message 1."""
        return handshake.suite.prologue + framed(handshake.write(1))

    def initiate(self, stream: Plain) -> Wire:
        """The whole handshake as initiator."""
        handshake = self.handshake(initiator=True)
        stream.send(self.first(handshake))
        return self.finish(stream, handshake)

    def finish(self, stream: Plain, handshake: Handshake) -> Wire:
        """Read message 2, and send message 3 where the suite has one."""
        payload = read_message(stream, handshake, 2)
        if self.suite.certificates:
            check_credential(payload, credential.RESPONDER, handshake, self.secrets)
            stream.send(framed(handshake.write(3, self.payload(credential.INITIATOR))))
        return self.wire(stream, handshake, initiator=True)

    def greet(self, stream: Plain) -> Handshake:
        """The first half as responder: read message 1."""
        handshake = self.handshake(initiator=False)
        read_first(stream, handshake)
        return handshake

    def respond(self, stream: Plain) -> Wire:
        """The whole handshake as responder."""
        handshake = self.greet(stream)
        stream.send(framed(handshake.write(2, self.payload(credential.RESPONDER))))
        return self.finish_responding(stream, handshake)

    def finish_responding(self, stream: Plain, handshake: Handshake) -> Wire:
        if self.suite.certificates:
            payload = read_message(stream, handshake, 3)
            check_credential(payload, credential.INITIATOR, handshake, self.secrets)
        return self.wire(stream, handshake, initiator=False)

    def wire(self, stream: Plain, handshake: Handshake, *, initiator: bool) -> Wire:
        """The wire leg behind the last message."""
        first, second = (Direction(key) for key in handshake.split())
        return Wire(stream, *((first, second) if initiator else (second, first)), handshake.h)


def greeter(number: int, secrets: Secrets) -> Greeter:
    """The honest one."""
    return Greeter(SUITES[number], secrets, secrets.kit, secrets.psk)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def read_first(stream: Plain, handshake: Handshake) -> bytes:
    """Prologue and message 1 of the implementation. Returns all their bytes.

    Raises:
        Deviation: they are not as section 1 says.
    """
    prologue = stream.exactly(6)
    if prologue != handshake.suite.prologue:
        raise Deviation(f"the wire leg begins with {prologue!r}, where {handshake.suite.prologue!r} had to come")
    length = stream.exactly(2)
    if int.from_bytes(length, "big") != handshake.suite.lengths[0]:
        raise Deviation(f"message 1 has {int.from_bytes(length, 'big')} bytes, not {handshake.suite.lengths[0]}")
    message = stream.exactly(handshake.suite.lengths[0])
    try:
        handshake.read(1, message)
    except (InvalidTag, ValueError) as exc:
        raise Deviation(f"message 1 is not valid: {type(exc).__name__}") from None
    return prologue + length + message


def read_message(stream: Plain, handshake: Handshake, number: int) -> bytes:
    """The payload of message 2 or 3 of the implementation."""
    size, least = int.from_bytes(stream.exactly(2), "big"), handshake.suite.lengths[number - 1]
    most = least + (16384 if handshake.suite.certificates else 0)
    if not least <= size <= most:
        raise Deviation(f"message {number} has {size} bytes, not {least}{' and a credential' if most > least else ''}")
    try:
        return handshake.read(number, stream.exactly(size))
    except (InvalidTag, ValueError) as exc:
        raise Deviation(f"message {number} is not valid: {type(exc).__name__}") from None


def check_credential(payload: bytes, role: int, handshake: Handshake, secrets: Secrets) -> None:
    """Check the implementation's credential: its form, its binding and its leaf.

    Raises:
        Deviation: it is not as section 8 says.
    """
    try:
        certificates, not_after, signature = credential.decode(payload)
    except ValueError as exc:
        raise Deviation(f"credential: {exc}") from None
    leaf = x509.load_der_x509_certificate(certificates[0])
    if leaf != secrets.implementation_leaf.certificate:
        raise Deviation("credential: its first certificate is not the leaf that the implementation was given")
    if not_after < time.time() - 60:
        raise Deviation("credential: its binding has expired")
    try:
        credential.verify(leaf.public_key(), credential.binding(role, handshake.remote_static or b"", not_after), signature)
    except InvalidSignature:
        raise Deviation("credential: the signature does not cover role, static key and not_after") from None
