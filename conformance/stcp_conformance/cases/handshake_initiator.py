"""Section 1, the implementation is the initiator: the kit accepts its wire legs as responder, or with faults."""

from __future__ import annotations

import os
from collections.abc import Callable

from stcp_conformance import credential
from stcp_conformance.bench import Bench
from stcp_conformance.frames import Type
from stcp_conformance.greeting import Greeter, framed, read_first
from stcp_conformance.noise import LOW_ORDER, Handshake, KeyPair
from stcp_conformance.registry import INITIATOR, add, case, every
from stcp_conformance.sockets import EOF, RST, Deviation, Plain
from stcp_conformance.suites import Suite

MARKER = b"conformance-marker-" * 4
NO_PLAINTEXT = "1: a handshake that fails resets the application, and sends none of its bytes"
Answer = Callable[[Bench, Greeter, Handshake], bytes]


def expect_nothing_sent(plain: Plain, stream: Plain) -> str:
    """The application sees a reset; the wire leg ends without a further byte."""
    plain.expect_end(RST)
    end = stream.expect_end(EOF, RST)
    return f"plain leg: RST; wire leg: no further byte and {end}"


@case("complete", "1: the handshake of the suite, then OPEN, ACCEPT, bytes and FIN both ways", roles=INITIATOR, suites=every)
def complete(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.finish()
    return f"both ways, then {link.wire.expect_closed()}"


@case("message-2-in-single-bytes", "1: TCP may split a message anywhere", roles=INITIATOR, suites=every)
def single_bytes(bench: Bench) -> None:
    _, stream = bench.start()
    greeter = bench.greeter()
    handshake = greeter.greet(stream)
    message = framed(handshake.write(2, greeter.payload(credential.RESPONDER)))
    for at in range(len(message)):
        stream.send(message[at : at + 1])
    greeter.finish_responding(stream, handshake).expect(Type.OPEN)


@case("fresh-ephemeral-keys", "1: ephemeral keys, X25519 and ML-KEM, are made for one handshake", roles=INITIATOR, suites=every)
def fresh(bench: Bench) -> None:
    seen: set[bytes] = set()
    for _ in range(3):
        _, stream = bench.start()
        handshake = bench.greeter().greet(stream)
        seen |= {handshake.remote_ephemeral, handshake.remote_encapsulation_key} - {b""}
    if len(seen) < 3 * (1 + bench.suite.kem):
        raise Deviation("message 1 of two connections had the same key")


@case(
    "static-key",
    "1: the initiator's static key is the one that it was given",
    roles=INITIATOR,
    suites=lambda suite: suite.knows_responder,
)
def static_key(bench: Bench) -> None:
    _, stream = bench.start()
    if bench.greeter().greet(stream).remote_static != bench.secrets.implementation.public:
        raise Deviation("message 1 has another static key")


def answered(answer: Answer) -> Callable[[Bench], str]:
    """A case in which the kit answers message 1 with something else."""

    def run(bench: Bench) -> str:
        plain, stream = bench.start()
        plain.send(MARKER)
        greeter = bench.greeter()
        handshake = greeter.handshake(initiator=False)
        read_first(stream, handshake)
        stream.send(answer(bench, greeter, handshake))
        return expect_nothing_sent(plain, stream)

    return run


def message_2(_: Bench, greeter: Greeter, handshake: Handshake) -> bytes:
    return framed(handshake.write(2, greeter.payload(credential.RESPONDER)))


def flipped(at: int) -> Answer:
    def answer(bench: Bench, greeter: Greeter, handshake: Handshake) -> bytes:
        message = bytearray(message_2(bench, greeter, handshake))
        message[at] ^= 1
        return bytes(message)

    return answer


for name, at in {"first-byte": 2, "second-half": 40, "last-byte": -1}.items():
    add(f"message-2-flipped-{name}", NO_PLAINTEXT, answered(flipped(at)), roles=INITIATOR, suites=every)

add(
    "message-2-random",
    NO_PLAINTEXT,
    answered(lambda bench, *_: framed(os.urandom(bench.suite.lengths[1]))),
    roles=INITIATOR,
    suites=every,
)


@case("low-order-ephemeral", "1: an X25519 result of 32 zero bytes ends the handshake", roles=INITIATOR, suites=every)
def low_order(bench: Bench) -> str:
    plain, stream = bench.start()
    plain.send(MARKER)
    greeter = bench.greeter(options={"ephemeral": KeyPair(public=LOW_ORDER)})
    handshake = greeter.greet(stream)
    stream.send(message_2(bench, greeter, handshake))
    return expect_nothing_sent(plain, stream)


def sized(change: int | None) -> Answer:
    def answer(bench: Bench, *_: object) -> bytes:
        return (65535 if change is None else max(0, bench.suite.lengths[1] + change)).to_bytes(2, "big")

    return answer


def fixed_length(suite: Suite) -> bool:
    return not suite.certificates


for name, change in {"0": -65535, "one-less": -1, "65535": None}.items():
    law = "1: a receiver refuses any other length as soon as it has the length field"
    add(f"message-2-length-{name}", law, answered(sized(change)), roles=INITIATOR, suites=every)
add("message-2-length-one-more", law, answered(sized(1)), roles=INITIATOR, suites=fixed_length)

for name, answer in {"plain-http": b"HTTP/1.1 400 Bad Request\r\n\r\n", "echo": b"STCP\x01\x01" + bytes(2000)}.items():
    add(f"answer-{name}", NO_PLAINTEXT, answered(lambda *_, answer=answer: answer), roles=INITIATOR)


@case("no-fallback", "1: neither negotiation nor fallback: no other suite follows a refusal", roles=INITIATOR, suites=every)
def no_fallback(bench: Bench) -> str:
    for _ in range(2):
        plain, stream = bench.start()
        plain.send(MARKER)
        read_first(stream, bench.greeter().handshake(initiator=False))
        stream.finish()
        expect_nothing_sent(plain, stream)
    return "two refusals, twice the same suite, then RST at the plain leg"


@case("refused-at-once", NO_PLAINTEXT, roles=INITIATOR)
def refused_at_once(bench: Bench) -> None:
    plain, stream = bench.start()
    stream.reset()
    plain.expect_end(RST)


@case("replayed-message-2", "1: message 2 of another connection is refused", roles=INITIATOR, suites=every)
def replayed(bench: Bench) -> str:
    _, first = bench.start()
    greeter = bench.greeter()
    old = message_2(bench, greeter, greeter.greet(first))
    plain, stream = bench.start()
    bench.greeter().greet(stream)
    stream.send(old)
    return expect_nothing_sent(plain, stream)


@case("other-secret", "1: a responder with another secret is refused", roles=INITIATOR, suites=lambda suite: suite.number == 6)
def other_secret(bench: Bench) -> str:
    plain, stream = bench.start()
    greeter = bench.greeter(psk=os.urandom(32))
    handshake = greeter.greet(stream)
    stream.send(message_2(bench, greeter, handshake))
    return expect_nothing_sent(plain, stream)


@case(
    "open-comes-first",
    "3: OPEN is the initiator's first frame, and comes without a byte of the application",
    roles=INITIATOR,
    suites=every,
)
def open_first(bench: Bench) -> None:
    bench.respond()


@case("nothing-in-the-clear", "1, 2: bytes of the application travel only in frames", roles=INITIATOR)
def nothing_in_the_clear(bench: Bench) -> None:
    plain, stream = bench.start()
    plain.send(MARKER)
    greeter = bench.greeter()
    handshake = greeter.handshake(initiator=False)
    first = read_first(stream, handshake)
    stream.send(message_2(bench, greeter, handshake))
    wire = greeter.finish_responding(stream, handshake)
    wire.expect(Type.OPEN)
    wire.send(Type.ACCEPT)
    wire.expect_data(MARKER)
    if MARKER[:8] in first:
        raise Deviation("bytes of the application stand in message 1")
