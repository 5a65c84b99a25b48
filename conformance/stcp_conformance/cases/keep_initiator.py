"""Section 7, kept wire legs: the implementation is the initiator, and the kit answers OPEN of a later connection."""

from __future__ import annotations

import select
from collections.abc import Callable

from stcp_conformance.bench import Bench, Link
from stcp_conformance.cases.keep import KEPT, ask, first
from stcp_conformance.frames import KEEP, Code, Type, read_attributes, reason
from stcp_conformance.registry import INITIATOR, add, case
from stcp_conformance.sockets import RST, Deviation
from stcp_conformance.wire import Frame

AGAIN_LAW = "7: BYE, or RESET before ACCEPT: the initiator sends the same OPEN and the same bytes on another leg"


def again(kind: Type | None, plaintext: bytes = b"", *, word: bytes = b"", ends: bool = False) -> Callable[[Bench], str]:
    """OPEN of a later connection, an answer that says nothing of it was acted upon, and the same on another leg."""

    def run(bench: Bench) -> str:
        link = first(bench)
        plain, opening = ask(bench, link)
        if word:
            plain.send(word)
        if ends:
            plain.finish()
        if kind is None:
            link.wire.stream.finish()
        else:
            link.wire.send(kind, plaintext)
            link.wire.stream.finish()
        wire = bench.greeter().respond(bench.accept())
        if without_keep(wire.expect(Type.OPEN)) != without_keep(opening):
            raise Deviation("OPEN on the other leg has other attributes")
        wire.send(Type.ACCEPT)
        if word:
            wire.expect_data(word)
        if ends:
            wire.expect(Type.FIN)
            wire.send(Type.DATA, b"answer")
            plain.expect(b"answer")
        else:
            Link(wire, plain).talk()
        return "the same OPEN on another leg"

    return run


def without_keep(attributes: bytes) -> list[tuple[int, bytes]]:
    return [each for each in read_attributes(attributes) if each[0] != KEEP]


for name, word, ends in (("", b"", False), ("-with-bytes", b"question", False), ("-with-bytes-and-fin", b"question", True)):
    add(f"bye-crosses-open{name}", AGAIN_LAW, again(Type.BYE, word=word, ends=ends), roles=INITIATOR, needs="keep")
    add(f"reset-crosses-open{name}", AGAIN_LAW, again(Type.RESET, reason(8), word=word, ends=ends), roles=INITIATOR, needs="keep")
END_LAW = "7: the end of the stream before ACCEPT: OPEN again only when no byte of the application went with it"
add("end-of-stream-crosses-open", END_LAW, again(None), roles=INITIATOR, needs="keep")


@case("end-of-stream-after-bytes", END_LAW, roles=INITIATOR, needs="keep")
def end_after_bytes(bench: Bench) -> str:
    """The application speaks before the implementation opens; whether its bytes go with OPEN is the implementation's choice."""
    link = first(bench)
    plain, _ = ask(bench, link)
    plain.send(b"question")
    found = link.wire.receive() if select.select([link.wire.stream.sock], [], [], 0.3)[0] else None
    link.wire.stream.finish()
    if not (isinstance(found, Frame) and found.kind is Type.DATA):
        wire = bench.greeter().respond(bench.accept())
        wire.expect(Type.OPEN)
        wire.send(Type.ACCEPT)
        wire.expect_data(b"question")
        return "no byte went with OPEN; OPEN again on another leg"
    plain.expect_end(RST)
    if bench.server.drain():
        raise Deviation("OPEN again on another leg, although bytes of the application went with the first")
    return "bytes went with OPEN; plain leg: RST, and no other leg"


@case(
    "reject-of-a-later-connection",
    "7: the responder acted: REJECT is an RST at the plain leg, and no OPEN again",
    roles=INITIATOR,
    needs="keep",
)
def reject_later(bench: Bench) -> str:
    link = first(bench)
    plain, _ = ask(bench, link)
    link.wire.send(Type.REJECT, reason(Code.TARGET_REFUSED))
    link.wire.stream.finish()
    plain.expect_end(RST)
    if bench.server.drain():
        raise Deviation("OPEN again on another leg")
    return "plain leg: RST, and no other leg"


@case(
    "application-leaves-before-accept-on-a-kept-leg",
    "5, 7: a plain leg is reset before ACCEPT: RESET, under the key of the new connection",
    roles=INITIATOR,
    needs="keep",
)
def leaves_early(bench: Bench) -> str:
    link = first(bench)
    plain, _ = ask(bench, link)
    plain.reset()
    link.wire.send(Type.ACCEPT)
    return link.wire.expect_end(Code.PLAIN_RESET)


@case("accept-under-the-old-key", "7: ACCEPT of a later connection comes with a new key", roles=INITIATOR, needs="keep")
def old_accept(bench: Bench) -> str:
    link = first(bench)
    ask(bench, link)
    link.wire.stream.send(link.wire.sends.seal(Type.ACCEPT, KEPT))
    return link.wire.expect_fault()
