"""Section 2, frames: what is valid arrives, and what is not ends the connection. Both roles."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from stcp_conformance.bench import Bench
from stcp_conformance.frames import HEADER, MAX_PLAINTEXT, REKEY_EVERY, Direction, Type, reason
from stcp_conformance.registry import add, case
from stcp_conformance.sockets import EOF, RST, Deviation
from stcp_conformance.wire import Wire

Bytes = Callable[[Wire], bytes]
HEADER_LAW = "2: a header that no frame has ends the connection, as soon as its four bytes are there"
TAG_LAW = "2: a tag that fails ends the connection, and no byte of the frame reaches the application"
CONTENT_LAW = "2: a plaintext that its type does not allow ends the connection"
WORD = b"must not reach the application"


# -- valid frames

SIZES = {"0": 0, "1": 1, "15": 15, "16": 16, "17": 17, "4096": 4096, "65515": MAX_PLAINTEXT - 1, "65516": MAX_PLAINTEXT}
for name, size in SIZES.items():

    @case(f"data-of-{name}-bytes", "2: a plaintext has 0 to 65516 bytes; an empty DATA frame has no effect")
    def _(bench: Bench, size: int = size) -> None:
        link, word = bench.open(), os.urandom(size) + b"."
        link.wire.send(Type.DATA, word[:-1])
        link.wire.send(Type.DATA, word[-1:])
        link.plain.expect(word)


@case("frames-in-one-segment", "2: TCP may join frames")
def joined(bench: Bench) -> None:
    link = bench.open()
    link.wire.stream.send(b"".join(link.wire.seal(Type.DATA, bytes([number])) for number in range(200)))
    link.plain.expect(bytes(range(200)))


@case("frames-in-single-bytes", "2: TCP may split a frame anywhere")
def split(bench: Bench) -> None:
    link = bench.open()
    frames = link.wire.seal(Type.DATA, b"one") + link.wire.seal(Type.DATA, b"two") + link.wire.seal(Type.FIN)
    for at in range(len(frames)):
        link.wire.stream.send(frames[at : at + 1])
    link.plain.expect(b"onetwo")
    link.plain.expect_end(EOF)


@case("half-a-frame-is-nothing", "2: no byte of a frame reaches the application before its tag was checked")
def half(bench: Bench) -> None:
    link = bench.open()
    frame = link.wire.seal(Type.DATA, bytes(1000))
    link.wire.stream.send(frame[:-1])
    link.plain.send(b"?")
    link.wire.expect_data(b"?")
    link.wire.stream.finish()
    link.plain.expect_end(RST)


@case("bulk", "2, 5: four megabytes there and back, in order")
def bulk(bench: Bench) -> None:
    link = bench.open()
    sent, digest = hashlib.sha256(), hashlib.sha256()
    for _ in range(64):
        part = os.urandom(MAX_PLAINTEXT)
        sent.update(part)
        link.wire.send(Type.DATA, part)
        digest.update(link.plain.exactly(len(part)))
        link.plain.send(part)
        link.wire.expect_data(part)
    if sent.digest() != digest.digest():
        raise Deviation("other bytes than were sent")


@case("rekey", "2: before n = 2^20 is used, a new key replaces the key, and n goes on counting", slow=True)
def rekey(bench: Bench) -> None:
    link = bench.open()
    while link.wire.sends.n < REKEY_EVERY + 2:
        count = min(4096, REKEY_EVERY + 2 - link.wire.sends.n)
        link.wire.stream.sock.sendall(b"".join(link.wire.sends.seal(Type.DATA) for _ in range(count)))
        link.wire.send(Type.DATA, b".")
        link.plain.expect(b".")
    link.talk()


# -- frames that are not valid


def bad(make: Bytes) -> Callable[[Bench], str]:
    """A good frame, the bad one, and a good one behind it, which may not count."""

    def run(bench: Bench) -> str:
        link = bench.open()
        link.talk()
        link.wire.stream.send(make(link.wire) + link.wire.sends.seal(Type.DATA, WORD))
        return link.expect_fault()

    return run


def only_header(kind: int, reserved: int, length: int) -> Callable[[Bench], str]:
    """Nothing but the header: the refusal may not wait for the rest of the frame."""

    def run(bench: Bench) -> str:
        link = bench.open()
        link.talk()
        link.wire.stream.send(bytes([kind, reserved]) + length.to_bytes(2, "big"))
        return link.expect_fault()

    return run


for kind in (7, 8, 128, 255):
    add(f"unknown-type-{kind}", HEADER_LAW, only_header(kind, 0, 20))
    add(f"unknown-type-{kind}-sealed", HEADER_LAW, bad(lambda wire, kind=kind: wire.seal(kind, WORD)))  # type: ignore[misc]
for reserved in (1, 128):
    add(f"reserved-byte-{reserved}", HEADER_LAW, only_header(0, reserved, 20))
add("reserved-byte-sealed", HEADER_LAW, bad(lambda wire: wire.seal(Type.DATA, WORD, reserved=1)))
for length in (0, 1, 15, 65533, 65535):
    add(f"length-{length}", HEADER_LAW, only_header(0, 0, length))


def flipped(at: int, kind: int = Type.DATA, plaintext: bytes = WORD) -> Bytes:
    def make(wire: Wire) -> bytes:
        frame = bytearray(wire.seal(kind, plaintext))
        frame[at] ^= 1
        return bytes(frame)

    return make


FLIPS = {"type": 0, "length": 3, "first-byte": HEADER, "last-byte": HEADER + len(WORD) - 1, "tag-first": -16, "tag-last": -1}
for name, at in FLIPS.items():
    add(f"flipped-{name}", TAG_LAW, bad(flipped(at)))
add("flipped-fin", TAG_LAW, bad(flipped(-1, Type.FIN, b"")))
add("flipped-reset", TAG_LAW, bad(flipped(5, Type.RESET, reason(8))))
add("flipped-empty-data", TAG_LAW, bad(flipped(-1, Type.DATA, b"")))


def dropped(wire: Wire) -> bytes:
    wire.seal(Type.DATA, b"dropped")
    return b""


def swapped(wire: Wire) -> bytes:
    first, second = wire.seal(Type.DATA, b"1"), wire.seal(Type.DATA, b"2")
    return second + first


def reflected(wire: Wire) -> bytes:
    return Direction(wire.receives.key, wire.sends.n).seal(Type.DATA, WORD)


def other_key(wire: Wire) -> bytes:
    return Direction(os.urandom(32), wire.sends.n).seal(Type.DATA, WORD)


for name, make in {
    "dropped": dropped,
    "swapped": swapped,
    "reflected": reflected,
    "other-key": other_key,
    "zeroes": lambda _: bytes(100),
    "plain-text": lambda _: b"\0\0\0\x40GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" + bytes(40),
}.items():
    add(f"frame-{name}", TAG_LAW, bad(make))


@case("frame-replayed", TAG_LAW)
def replay(bench: Bench) -> str:
    link = bench.open()
    frame = link.wire.seal(Type.DATA, b"once")
    link.wire.stream.send(frame)
    link.plain.expect(b"once")
    link.wire.stream.send(frame)
    return link.expect_fault()


CONTENTS = {
    "fin-with-a-byte": (Type.FIN, b"x"),
    "fin-with-65516-bytes": (Type.FIN, bytes(MAX_PLAINTEXT)),
    "reset-without-code": (Type.RESET, b""),
    "reset-with-half-a-code": (Type.RESET, b"\0"),
    "reset-with-257-bytes-of-text": (Type.RESET, reason(8, b"x" * 257)),
    "reset-with-65514-bytes-of-text": (Type.RESET, reason(8, bytes(MAX_PLAINTEXT - 2))),
}
for name, (kind, plaintext) in CONTENTS.items():
    add(name, CONTENT_LAW, bad(lambda wire, kind=kind, plaintext=plaintext: wire.seal(kind, plaintext)))  # type: ignore[misc]
