"""Section 1, the implementation is the responder: the kit connects as initiator or as a stranger."""

from __future__ import annotations

import os
from collections.abc import Callable

from stcp_conformance.bench import Bench
from stcp_conformance.frames import Type
from stcp_conformance.greeting import read_message
from stcp_conformance.noise import INVALID_ENCAPSULATION_KEY, LOW_ORDER, KeyPair
from stcp_conformance.registry import RESPONDER, add, case, every
from stcp_conformance.sockets import EOF, RST, Deviation, Plain
from stcp_conformance.suites import SUITES, Suite

SILENT = "1: a responder that refuses closes the wire leg without a reply"


def expect_silence(bench: Bench, stream: Plain) -> str:
    """The responder closes without a byte, and dials nothing."""
    end = stream.expect_end(EOF, RST)
    bench.expect_no_dial()
    return f"no byte and {end}; no connection to the target"


def refused(bench: Bench, data: bytes, *, finish: bool = False) -> str:
    stream = bench.dial()
    stream.send(data)
    if finish:
        stream.finish()
    return expect_silence(bench, stream)


@case("complete", "1: the handshake of the suite, then OPEN, ACCEPT, bytes and FIN both ways", roles=RESPONDER, suites=every)
def complete(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.finish()
    return f"both ways, then {link.wire.expect_closed()}"


@case("message-1-in-single-bytes", "1: TCP may split a message anywhere", roles=RESPONDER, suites=every)
def single_bytes(bench: Bench) -> None:
    stream, greeter = bench.dial(), bench.greeter()
    handshake = greeter.handshake(initiator=True)
    first = greeter.first(handshake)
    for at in range(len(first)):
        stream.send(first[at : at + 1])
    greeter.finish(stream, handshake)


@case(
    "nothing-before-the-first-frame",
    "1: the responder dials nothing until the first frame has authenticated",
    roles=RESPONDER,
    suites=every,
)
def no_early_dial(bench: Bench) -> str:
    wire = bench.initiate()
    wire.stream.finish()
    return expect_silence(bench, wire.stream)


@case("first-frame-tag", "1: a first frame that does not authenticate reaches nothing", roles=RESPONDER, suites=every)
def first_frame_tag(bench: Bench) -> str:
    wire = bench.initiate()
    frame = bytearray(wire.seal(Type.OPEN))
    frame[-1] ^= 1
    wire.stream.send(bytes(frame))
    return expect_silence(bench, wire.stream)


def flip(at: int, bit: int = 1) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        greeter = bench.greeter()
        first = bytearray(greeter.first(greeter.handshake(initiator=True)))
        first[8 + (at if at >= 0 else len(first) - 8 + at)] ^= bit
        return refused(bench, bytes(first))

    return run


def has_tag(suite: Suite) -> bool:
    return not suite.certificates


for name, at in {"first-byte": 0, "middle": 40, "last-byte": -1}.items():
    add(f"message-1-flipped-{name}", SILENT, flip(at), roles=RESPONDER, suites=has_tag)


@case("low-order-ephemeral", "1: an X25519 result of 32 zero bytes ends the handshake", roles=RESPONDER, suites=every)
def low_order(bench: Bench) -> str:
    greeter = bench.greeter(options={"ephemeral": KeyPair(public=LOW_ORDER)})
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case(
    "invalid-encapsulation-key",
    "1: an encapsulation key that FIPS 203's check refuses ends the handshake",
    roles=RESPONDER,
    suites=lambda suite: suite.kem,
)
def bad_kem(bench: Bench) -> str:
    greeter = bench.greeter(options={"encapsulation_key": INVALID_ENCAPSULATION_KEY})
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case(
    "unknown-key",
    "1: an initiator whose key is on no list is refused",
    roles=RESPONDER,
    suites=lambda suite: suite.knows_responder,
)
def unknown_key(bench: Bench) -> str:
    greeter = bench.greeter(static=KeyPair())
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case(
    "second-form-of-a-key",
    "1: a static key that is not a number below 2^255 - 19 is refused",
    roles=RESPONDER,
    suites=lambda suite: suite.knows_responder,
)
def second_form(bench: Bench) -> str:
    greeter = bench.greeter(static=KeyPair(bench.secrets.kit.private, second_form=True))
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case(
    "other-responder",
    "1: a message 1 for another responder's key is refused",
    roles=RESPONDER,
    suites=lambda suite: suite.knows_responder,
)
def other_responder(bench: Bench) -> str:
    greeter = bench.greeter(options={"remote_static": KeyPair().public})
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case(
    "other-secret",
    "1: an initiator with another secret is refused",
    roles=RESPONDER,
    suites=lambda suite: suite.psk and not suite.static,
)
def other_secret(bench: Bench) -> str:
    greeter = bench.greeter(psk=os.urandom(32))
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case("replay", "1: message 1 proves nothing: an answer may come, but nothing is dialled", roles=RESPONDER, suites=every)
def replay(bench: Bench) -> str:
    greeter = bench.greeter()
    first = greeter.first(greeter.handshake(initiator=True))
    for _ in range(2):
        stream = bench.dial()
        stream.send(first)
        stream.finish()
        stream.rest()
    bench.expect_no_dial()
    return "no connection to the target"


@case("fresh-ephemeral-keys", "1: ephemeral keys are made for one handshake", roles=RESPONDER, suites=every)
def fresh(bench: Bench) -> None:
    seen = set()
    for _ in range(3):
        stream, greeter = bench.dial(), bench.greeter()
        handshake = greeter.handshake(initiator=True)
        stream.send(greeter.first(handshake))
        read_message(stream, handshake, 2)
        seen.add(handshake.remote_ephemeral)
    if len(seen) < 3:
        raise Deviation("message 2 of two connections had the same ephemeral key")


def prologue(head: bytes) -> Callable[[Bench], str]:
    """Another beginning; the handshake is computed with it, so that only the check of the beginning refuses it."""

    def run(bench: Bench) -> str:
        greeter = bench.greeter(options={"prologue": head})
        return refused(bench, head + greeter.first(greeter.handshake(initiator=True))[6:])

    return run


for name, head in {
    "small-letters": b"stcp\x01",
    "version-0": b"STCP\x00",
    "version-2": b"STCP\x02",
    "tls": b"\x16\x03\x01\x02\x00",
    "http": b"GET /",
}.items():

    @case(f"prologue-{name}", SILENT, roles=RESPONDER)
    def _(bench: Bench, head: bytes = head) -> str:
        return prologue(head + bytes([bench.suite.number]))(bench)


for number in (0, 7, 255):
    add(f"suite-{number}-does-not-exist", SILENT, prologue(b"STCP\x01" + bytes([number])), roles=RESPONDER)


@case(
    "suite-that-is-not-accepted", "1: neither negotiation nor fallback: only the configured suites", roles=RESPONDER, suites=every
)
def other_suite(bench: Bench) -> str:
    other = {1: 2, 2: 1, 3: 4, 4: 3, 5: 1, 6: 1}[bench.suite.number]
    greeter = bench.greeter(suite=SUITES[other])
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


@case("suite-changed-on-the-way", "1: both sides authenticate version and suite", roles=RESPONDER, suites=has_tag)
def changed_suite(bench: Bench) -> str:
    other = {1: 6, 2: 4, 3: 1, 4: 2, 6: 1}[bench.suite.number]
    greeter = bench.greeter(options={"prologue": SUITES[other].prologue})
    return refused(bench, greeter.first(greeter.handshake(initiator=True)))


def length(change: int | None) -> Callable[[Bench], str]:
    """Only prologue and length: the refusal may not wait for the message."""

    def run(bench: Bench) -> str:
        size = 65535 if change is None else max(0, bench.suite.lengths[0] + change)
        return refused(bench, bench.suite.prologue + size.to_bytes(2, "big"))

    return run


for name, change in {"0": -65535, "one-less": -1, "one-more": 1, "65535": None}.items():
    add(
        f"message-1-length-{name}",
        "1: a receiver refuses any other length as soon as it has the length field",
        length(change),
        roles=RESPONDER,
        suites=every,
    )


@case("bytes-behind-message-1", "1: an initiator sends nothing between message 1 and message 2", roles=RESPONDER, suites=has_tag)
def bytes_behind(bench: Bench) -> str:
    stream, greeter = bench.dial(), bench.greeter()
    stream.send(greeter.first(greeter.handshake(initiator=True)) + bytes([Type.OPEN, 0, 0, 16]) + bytes(16))
    stream.finish()
    data, end = stream.rest()
    bench.expect_no_dial()
    if len(data) not in (0, 2 + bench.suite.lengths[1]):
        raise Deviation(f"wire leg: {len(data)} bytes, where at most message 2 may come")
    return f"{len(data)} bytes and {end}; no connection to the target"


for name, cut in {"nothing": 0, "magic": 4, "prologue": 6, "length": 8, "half-of-message-1": 40}.items():

    @case(f"ends-after-{name}", SILENT, roles=RESPONDER)
    def _(bench: Bench, cut: int = cut) -> str:
        greeter = bench.greeter()
        return refused(bench, greeter.first(greeter.handshake(initiator=True))[:cut], finish=True)


@case("random-bytes", SILENT, roles=RESPONDER)
def random_bytes(bench: Bench) -> str:
    return refused(bench, os.urandom(4096))


@case("random-message-1", SILENT, roles=RESPONDER, suites=has_tag)
def random_message(bench: Bench) -> str:
    size = bench.suite.lengths[0]
    return refused(bench, bench.suite.prologue + size.to_bytes(2, "big") + os.urandom(size))


@case(
    "secret-at-the-end",
    "1: in suite 6 another secret fails with message 2, before anything is dialled",
    roles=RESPONDER,
    suites=lambda s: s.number == 6,
)
def late_secret(bench: Bench) -> str:
    greeter, stream = bench.greeter(psk=os.urandom(32)), bench.dial()
    handshake = greeter.handshake(initiator=True)
    stream.send(greeter.first(handshake))
    try:
        read_message(stream, handshake, 2)
    except Deviation:
        stream.finish()
        stream.rest()
        bench.expect_no_dial()
        return "message 2 did not authenticate with another secret; no connection to the target"
    raise Deviation("message 2 authenticated with another secret")
