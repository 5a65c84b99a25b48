"""Section 7, ready legs: the implementation is the responder, and the kit makes a leg idle before it has a connection for it."""

from __future__ import annotations

from stcp_conformance.bench import Bench, Link
from stcp_conformance.frames import KEEP, SERVICE, Code, Type, attribute, keep, read_attributes
from stcp_conformance.registry import RESPONDER, case
from stcp_conformance.sockets import Deviation
from stcp_conformance.wire import Wire

READY = attribute(SERVICE, b":ready")
KEPT = keep(30)


def made_ready(bench: Bench) -> Wire:
    """A leg that was made ready, and is idle."""
    wire = bench.initiate()
    wire.stream.send(wire.seal(Type.OPEN, READY + KEPT) + wire.seal(Type.FIN))
    if KEEP not in dict(read_attributes(wire.expect(Type.ACCEPT))):
        raise Deviation("ACCEPT has no attribute 4, although the implementation offers ready")
    wire.expect(Type.FIN)
    bench.expect_no_dial()
    wire.idle = True
    return wire


@case("ready-leg", "7: a ready leg dials nothing, and carries the next connection under new keys", roles=RESPONDER, needs="ready")
def ready_leg(bench: Bench) -> None:
    wire = made_ready(bench)
    wire.stream.send(wire.seal(Type.OPEN, KEPT) + wire.sends.seal(Type.DATA, b"early"))
    plain = bench.target()
    plain.expect(b"early")
    wire.expect(Type.ACCEPT)
    link = Link(wire, plain)
    wire.idle = False
    link.talk()
    link.finish()


@case("ready-leg-gets-bye", "7: the receiver of BYE closes the leg", roles=RESPONDER, needs="ready")
def ready_leg_bye(bench: Bench) -> str:
    wire = made_ready(bench)
    wire.send(Type.BYE)
    return wire.expect_closed()


@case("data-on-a-leg-that-is-made-ready", "7: DATA on such a connection is out of place", roles=RESPONDER, needs="ready")
def data(bench: Bench) -> str:
    wire = bench.initiate()
    wire.stream.send(wire.seal(Type.OPEN, READY + KEPT) + wire.seal(Type.DATA, b"x") + wire.seal(Type.FIN))
    frames, end = wire.rest()
    bench.expect_no_dial()
    kinds = [frame.kind for frame in frames]
    if kinds[:1] == [Type.ACCEPT]:
        kinds = [kind for kind in kinds[1:] if kind is not Type.FIN]
    if kinds not in ([], [Type.RESET]):
        raise Deviation(f"wire leg: {', '.join(map(str, frames))}, where the connection had to end")
    return f"{', '.join(map(str, frames)) or 'no frame'} and {end}; no connection to the target"


def refused(bench: Bench, attributes: bytes) -> str:
    wire = bench.initiate()
    wire.stream.send(wire.seal(Type.OPEN, attributes) + wire.seal(Type.FIN))
    found = wire.expect(Type.REJECT)
    bench.expect_no_dial()
    if int.from_bytes(found[:2], "big") != Code.UNKNOWN_SERVICE:
        raise Deviation(f"REJECT with code {int.from_bytes(found[:2], 'big')}, where 2 had to come")
    return f"REJECT with code 2, then {wire.expect_closed()}"


@case(
    "ready-without-keep",
    "7: a responder that does not keep the leg answers REJECT with code 2",
    roles=RESPONDER,
    needs="services",
)
def without_keep(bench: Bench) -> str:
    return refused(bench, READY)


@case(
    "service-that-begins-with-a-colon",
    "4, 7: names that begin with a colon belong to the protocol: an unknown one gets REJECT with code 2",
    roles=RESPONDER,
    needs="services",
)
def other_name(bench: Bench) -> str:
    return refused(bench, attribute(SERVICE, b":conformance") + KEPT)
