"""Section 7, kept wire legs."""

from __future__ import annotations

import select
from collections.abc import Callable

from stcp_conformance.bench import Bench, Link
from stcp_conformance.cases.order import expect_early_and_answer, expect_no_reply
from stcp_conformance.frames import KEEP, SERVICE, Code, Type, attribute, keep, read_attributes, reason
from stcp_conformance.greeting import greeter
from stcp_conformance.registry import INITIATOR, RESPONDER, add, case
from stcp_conformance.sockets import EOF, RST, Deviation, Plain

KEPT = keep(30)
IDLE_LAW = "7: on an idle leg only OPEN of the initiator and BYE are in place; another frame ends the leg"


def first(bench: Bench) -> Link:
    """A leg that has carried one connection, and is idle."""
    link = bench.open(KEPT)
    if KEEP not in dict(read_attributes(link.attributes)):
        raise Deviation(
            f"{'ACCEPT' if bench.is_responder else 'OPEN'} has no attribute 4, although the implementation offers keep"
        )
    link.talk(b"first")
    link.finish()
    link.wire.idle = True
    return link


def ask(bench: Bench, link: Link) -> tuple[Plain, bytes]:
    """The implementation, an initiator, opens the next connection on the idle leg. Returns plain leg and attributes of OPEN.

    It may need a moment until the leg is free again. A connection that takes a new leg meanwhile is ended, and the next tries.
    """
    for _ in range(20):
        plain = bench.application()
        old, new = link.wire.stream.sock.fileno(), bench.server.fileno()
        ready, _, _ = select.select([old, new], [], [], bench.seconds)
        if not ready:
            raise Deviation("no OPEN came, neither on the idle leg nor on a new one")
        if new not in ready:
            return plain, link.wire.expect(Type.OPEN)
        wire = greeter(bench.suite.number, bench.secrets).respond(bench.accept())
        wire.expect(Type.OPEN)
        wire.send(Type.REJECT, reason(Code.DENIED))
        plain.expect_end(RST)
    raise Deviation("20 connections took new legs, although a leg is idle")


def second(bench: Bench, link: Link, attributes: bytes = KEPT) -> Link:
    """The next connection on the idle leg."""
    wire = link.wire
    if bench.is_responder:
        wire.send(Type.OPEN, attributes)
        plain = bench.target()
        answer = wire.expect(Type.ACCEPT)
    else:
        plain, answer = ask(bench, link)
        wire.send(Type.ACCEPT, attributes)
    wire.idle = False
    return Link(wire, plain, answer)


def leg_ends(link: Link, *kinds: Type) -> str:
    """The implementation ends an idle leg: at most one frame of these types comes before. Without types: BYE or RESET."""
    kinds = kinds or (Type.BYE, Type.RESET)
    frames, end = link.wire.rest()
    if len(frames) > 1 or any(frame.kind not in kinds for frame in frames):
        names = " or ".join(kind.name for kind in kinds)
        raise Deviation(f"wire leg: {', '.join(map(str, frames))}, where at most {names} may come")
    return f"wire leg: {', '.join(map(str, frames)) or 'no frame'} and {end}"


@case("kept-connections", "7: a kept leg carries one connection after the other, each with new keys", needs="keep")
def several(bench: Bench) -> str:
    link = first(bench)
    for number in range(4):
        link = second(bench, link)
        link.talk(bytes([number]) * 1000)
        link.finish()
        link.wire.idle = True
    return "five connections on one leg"


@case("kept-connection-without-bytes", "7: new keys also when the connection before carried nothing", needs="keep")
def without_bytes(bench: Bench) -> None:
    link = bench.open(KEPT)
    link.finish()
    link.wire.idle = True
    second(bench, link).talk()


@case("agreement-anew", "7: each connection agrees anew: without attribute 4 the leg is closed after both FINs", needs="keep")
def anew(bench: Bench) -> str:
    link = second(bench, first(bench), b"")
    link.finish()
    return link.wire.expect_closed()


@case("no-agreement", "7: where one side did not say keep, the leg is closed after both FINs", needs="keep")
def no_agreement(bench: Bench) -> str:
    link = bench.open()
    if bench.is_responder and link.attributes:
        raise Deviation("ACCEPT has attributes, although OPEN has none")
    link.finish()
    return link.wire.expect_closed()


@case("kept-when-the-application-ends-first", "7: a connection is over in order, whichever FIN comes first", needs="keep")
def application_first(bench: Bench) -> None:
    link = bench.open(KEPT)
    link.plain.finish()
    link.wire.expect(Type.FIN)
    link.wire.send(Type.FIN)
    link.plain.expect_end(EOF)
    link.wire.idle = True
    second(bench, link).talk()


@case(
    "end-of-stream-after-fin-on-a-kept-leg",
    "5, 7: the end of the stream after FIN ends the leg, not the connection",
    needs="keep",
)
def half_closed(bench: Bench) -> str:
    link = bench.open(KEPT)
    link.wire.send(Type.FIN)
    link.wire.stream.finish()
    link.plain.expect_end(EOF)
    link.plain.send(b"answer")
    link.wire.expect_data(b"answer")
    link.plain.finish()
    link.wire.expect(Type.FIN)
    return leg_ends(link)


@case("data-behind-open-on-a-kept-leg", "3, 7: DATA and FIN may follow each OPEN directly", roles=RESPONDER, needs="keep")
def data_behind_open(bench: Bench) -> None:
    link = first(bench)
    wire = link.wire
    wire.stream.send(wire.seal(Type.OPEN, KEPT) + wire.sends.seal(Type.DATA, b"early") + wire.sends.seal(Type.FIN))
    expect_early_and_answer(bench, wire)
    second(bench, link).talk()


@case("fin-and-open-in-one-segment", "7: OPEN of the next connection may follow FIN directly", roles=RESPONDER, needs="keep")
def fin_and_open(bench: Bench) -> None:
    link = bench.open(KEPT)
    link.talk()
    link.plain.finish()
    link.wire.expect(Type.FIN)
    wire = link.wire
    last = wire.seal(Type.FIN)
    wire.idle = True
    wire.stream.send(last + wire.seal(Type.OPEN, KEPT) + wire.sends.seal(Type.DATA, b"next"))
    link.plain.expect_end(EOF)
    plain = bench.target()
    plain.expect(b"next")
    Link(wire, plain, wire.expect(Type.ACCEPT))


@case("fin-and-bye-in-one-segment", "7: BYE may follow FIN directly, and the connection ends in order", needs="keep")
def fin_and_bye(bench: Bench) -> str:
    link = bench.open(KEPT)
    link.talk()
    link.plain.finish()
    link.wire.expect(Type.FIN)
    link.wire.stream.send(link.wire.seal(Type.FIN) + link.wire.seal(Type.BYE))
    link.plain.expect_end(EOF)
    return leg_ends(link, Type.BYE)


@case("truncation-on-a-kept-leg", "5, 7: a later connection that is cut is an RST at the plain leg", needs="keep")
def cut(bench: Bench) -> None:
    link = second(bench, first(bench))
    link.talk()
    link.wire.stream.finish()
    link.plain.expect_end(RST)


@case("fault-on-a-kept-leg", "2, 7: a tag that fails in a later connection ends it", needs="keep")
def fault(bench: Bench) -> str:
    link = second(bench, first(bench))
    link.talk()
    frame = bytearray(link.wire.seal(Type.DATA, b"x"))
    frame[-1] ^= 1
    link.wire.stream.send(bytes(frame))
    return link.expect_fault()


@case("reset-on-a-kept-leg", "5, 7: RESET of a later connection ends connection and leg", needs="keep")
def reset_later(bench: Bench) -> str:
    link = second(bench, first(bench))
    link.talk()
    link.plain.reset()
    return link.wire.expect_end(Code.PLAIN_RESET, silent=False)


# -- an idle leg


def idle(kind: int, plaintext: bytes = b"", *, tag: bool = True, old_key: bool = False) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        link = first(bench)
        frame = bytearray(link.wire.sends.seal(kind, plaintext) if old_key else link.wire.seal(kind, plaintext))
        frame[-1] ^= not tag
        link.wire.stream.send(bytes(frame))
        seen = leg_ends(link)
        if bench.is_responder:
            bench.expect_no_dial()
        return seen

    return run


for name, kind, plaintext in (
    ("data", Type.DATA, b"x"),
    ("fin", Type.FIN, b""),
    ("accept", Type.ACCEPT, b""),
    ("reject", Type.REJECT, reason(1)),
    ("unknown-type", 7, b""),
    ("bye-with-a-byte", Type.BYE, b"x"),
):
    add(f"idle-{name}", IDLE_LAW, idle(kind, plaintext), needs="keep")
add("idle-open", IDLE_LAW, idle(Type.OPEN), roles=INITIATOR, needs="keep")
add("idle-reset", "7: a RESET that crossed the last FIN ends the leg", idle(Type.RESET, reason(8)), needs="keep")
add("idle-bye", "7: the receiver of BYE closes the leg", idle(Type.BYE), needs="keep")
add("idle-bye-tag", "2, 7: a tag that fails ends the leg", idle(Type.BYE, tag=False), needs="keep")
add("idle-open-tag", "2, 7: a tag that fails ends the leg", idle(Type.OPEN, tag=False), roles=RESPONDER, needs="keep")
OLD = "7: OPEN of connection i > 0 under the key of the connection before ends the leg"
add("idle-open-under-the-old-key", OLD, idle(Type.OPEN, old_key=True), roles=RESPONDER, needs="keep")


@case(
    "idle-open-with-service-twice",
    "4, 7: an OPEN that the format does not allow reaches no target, gets no reply, and ends the leg",
    roles=RESPONDER,
    needs="keep",
)
def idle_bad_open(bench: Bench) -> str:
    link = first(bench)
    link.wire.send(Type.OPEN, KEPT + 2 * attribute(SERVICE, b"db"))
    return expect_no_reply(bench, link.wire)


@case("idle-bye-and-open", "7: the receiver of BYE closes the leg, and acts on nothing behind it", roles=RESPONDER, needs="keep")
def bye_and_open(bench: Bench) -> str:
    link = first(bench)
    link.wire.stream.send(link.wire.seal(Type.BYE) + link.wire.seal(Type.OPEN))
    seen = leg_ends(link)
    bench.expect_no_dial()
    return seen


@case("idle-end-of-stream", "7: the end of the stream on an idle leg is an ordinary end", needs="keep")
def idle_end(bench: Bench) -> str:
    link = first(bench)
    link.wire.stream.finish()
    seen = leg_ends(link)
    bench.clear()
    bench.open().talk()
    return f"{seen}; the next connection has a leg of its own"


@case("idle-for-the-smaller-time", "7: the leg is kept for the smaller number of seconds, then gets BYE", needs="keep")
def smaller(bench: Bench) -> str:
    link = bench.open(keep(1))
    link.finish()
    link.wire.idle = True
    seen = leg_ends(link)
    if not seen.startswith("wire leg: BYE"):
        raise Deviation(f"{seen}, where BYE had to come")
    if bench.is_responder:
        link.wire.send(Type.OPEN)
        bench.expect_no_dial()
    return seen


@case("reject-on-a-kept-leg", "7: REJECT of a later connection ends the leg", roles=RESPONDER, needs="keep services")
def reject_on_leg(bench: Bench) -> str:
    link = first(bench)
    link.wire.send(Type.OPEN, b"\x01\0\x0fnobody-has-this")
    link.wire.expect(Type.REJECT)
    return link.wire.stream.expect_end(EOF, RST)
