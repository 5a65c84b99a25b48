"""Section 3, order, and section 4, contents of OPEN, ACCEPT, REJECT and RESET."""

from __future__ import annotations

import select
from collections.abc import Callable

from stcp_conformance.bench import Bench
from stcp_conformance.cases.frames import WORD, bad
from stcp_conformance.frames import CLIENT, KEEP, MAX_PLAINTEXT, ORIGINAL, SERVICE, Code, Type, address, attribute, keep, reason
from stcp_conformance.registry import INITIATOR, RESPONDER, add, case
from stcp_conformance.sockets import EOF, RST, Deviation
from stcp_conformance.wire import Wire

ORDER_LAW = "3: a frame out of place ends the connection"
FIRST_LAW = "1, 3: the initiator's first frame is OPEN; anything else reaches no target, and gets no reply"
ANSWER_LAW = "3: the responder's first frame is ACCEPT or REJECT"
ATTRIBUTE_LAW = "1, 4: attributes that the format does not allow end the connection, reach no target, and get no reply"
SKIP_LAW = "4: a receiver skips unknown attributes"
REASON_LAW = "4: a reason is a code and at most 256 bytes of text; the connection is over, whatever they are"

# -- after OPEN and ACCEPT, both roles

for name, kind, plaintext in (
    ("open", Type.OPEN, b""),
    ("accept", Type.ACCEPT, b""),
    ("reject", Type.REJECT, reason(1)),
    ("bye", Type.BYE, b""),
):
    add(f"{name}-within-a-connection", ORDER_LAW, bad(lambda wire, kind=kind, plaintext=plaintext: wire.seal(kind, plaintext)))  # type: ignore[misc]


def after_fin(kind: int, plaintext: bytes) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        link = bench.open()
        link.talk()
        link.wire.send(Type.FIN)
        link.plain.expect_end(EOF)
        link.wire.send(kind, plaintext)
        end = link.wire.expect_fault()
        link.plain.send(b"?")
        return f"wire leg: {end}"

    return run


for name, kind, plaintext in (
    ("data", Type.DATA, WORD),
    ("empty-data", Type.DATA, b""),
    ("fin", Type.FIN, b""),
    ("open", Type.OPEN, b""),
    ("accept", Type.ACCEPT, b""),
    ("reject", Type.REJECT, reason(1)),
    ("bye", Type.BYE, b""),
):
    add(f"{name}-after-fin", "3: after FIN only RESET may come", after_fin(kind, plaintext))


@case("reset-after-fin", "3: RESET may come after FIN")
def reset_after_fin(bench: Bench) -> str:
    link = bench.open()
    link.wire.send(Type.FIN)
    link.plain.expect_end(EOF)
    link.wire.send(Type.RESET, reason(Code.PLAIN_RESET))
    return link.wire.expect_end()


# -- the implementation is the responder: first frames


def first(kind: int, plaintext: bytes) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        wire = bench.initiate()
        wire.send(kind, plaintext)
        return expect_no_reply(bench, wire)

    return run


def expect_no_reply(bench: Bench, wire: Wire) -> str:
    """The responder closes the leg without a frame, and dials nothing."""
    frames, end = wire.rest()
    bench.expect_no_dial()
    if frames:
        raise Deviation(f"wire leg: {', '.join(map(str, frames))}, where no frame may come")
    return f"no frame and {end}; no connection to the target"


for name, kind, plaintext in (
    ("data", Type.DATA, WORD),
    ("fin", Type.FIN, b""),
    ("reset", Type.RESET, reason(8)),
    ("accept", Type.ACCEPT, b""),
    ("reject", Type.REJECT, reason(1)),
    ("bye", Type.BYE, b""),
):
    add(f"{name}-in-place-of-open", FIRST_LAW, first(kind, plaintext), roles=RESPONDER)


def expect_early_and_answer(bench: Bench, wire: Wire) -> None:
    """After OPEN, DATA "early" and FIN in one segment: the target gets all, and its answer comes back with FIN."""
    plain = bench.target()
    plain.expect(b"early")
    plain.expect_end(EOF)
    wire.expect(Type.ACCEPT)
    plain.send(b"late")
    wire.expect_data(b"late")
    plain.finish()
    wire.expect(Type.FIN)


@case("data-behind-open", "3: DATA and FIN may follow OPEN directly, without waiting for ACCEPT", roles=RESPONDER)
def data_behind_open(bench: Bench) -> str:
    wire = bench.initiate()
    wire.stream.send(wire.seal(Type.OPEN) + wire.seal(Type.DATA, b"early") + wire.seal(Type.FIN))
    expect_early_and_answer(bench, wire)
    return wire.expect_closed()


@case("reset-behind-open", "3: RESET may come at any time after OPEN", roles=RESPONDER)
def reset_behind_open(bench: Bench) -> str:
    wire = bench.initiate()
    wire.stream.send(wire.seal(Type.OPEN) + wire.seal(Type.RESET, reason(Code.PLAIN_RESET)))
    frames, end = wire.rest()
    if any(frame.kind not in (Type.ACCEPT, Type.REJECT) for frame in frames):
        raise Deviation(f"wire leg: {', '.join(map(str, frames))}")
    return f"{', '.join(map(str, frames)) or 'no frame'} and {end}"


@case(
    "fault-behind-open",
    "3, 5: a fault before the answer to OPEN: no RESET in place of ACCEPT or REJECT, and no byte reaches the target",
    roles=RESPONDER,
)
def fault_behind_open(bench: Bench) -> str:
    wire = bench.initiate()
    frame = bytearray(wire.seal(Type.OPEN) + wire.seal(Type.DATA, WORD))
    frame[-1] ^= 1
    wire.stream.send(bytes(frame))
    frames, end = wire.rest()
    seen = f"{', '.join(map(str, frames)) or 'no frame'} and {end}"
    if [frame.kind for frame in frames] not in ([], [Type.REJECT], [Type.ACCEPT], [Type.ACCEPT, Type.RESET]):
        raise Deviation(f"wire leg: {seen}")
    for plain in bench.dialled():
        plain.expect_end(RST)
    return seen


ATTRIBUTES = {
    "cut-in-the-header": b"\x01\0",
    "cut-in-the-value": attribute(SERVICE, b"db", length=3),
    "longer-than-the-frame": attribute(128, b"", length=65535),
    "service-empty": attribute(SERVICE, b""),
    "service-of-256-bytes": attribute(SERVICE, b"x" * 256),
    "service-not-utf-8": attribute(SERVICE, b"\xff\xfe"),
    "service-twice": 2 * attribute(SERVICE, b"db"),
    "client-empty": attribute(CLIENT, b""),
    "client-family-5": attribute(CLIENT, b"\5" + bytes(6)),
    "client-short": attribute(CLIENT, address("192.0.2.7", 1)[:-1]),
    "client-long": attribute(CLIENT, address("192.0.2.7", 1) + b"\0"),
    "client-twice": 2 * attribute(CLIENT, address("192.0.2.7", 1)),
    "original-of-4-bytes-family-6": attribute(ORIGINAL, b"\6" + bytes(6)),
    "original-twice": 2 * attribute(ORIGINAL, address("::1", 1)),
    "keep-of-one-byte": attribute(KEEP, b"\1"),
    "keep-of-three-bytes": attribute(KEEP, b"\0\0\1"),
    "keep-of-no-seconds": keep(0),
    "keep-twice": 2 * keep(30),
    "65-attributes": 65 * attribute(200, b""),
    "21838-attributes": 21838 * attribute(200, b""),
}
KEPT = "keep-"
LIMITED = "-attributes"


def needed(name: str) -> str:
    """The part without which an implementation skips the attribute, or takes any number."""
    return "keep" if name.startswith(KEPT) else "attribute-limit" if name.endswith(LIMITED) else ""


for name, plaintext in ATTRIBUTES.items():
    add(f"open-with-{name}", ATTRIBUTE_LAW, first(Type.OPEN, plaintext), roles=RESPONDER, needs=needed(name))


def opens(plaintext: bytes) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        bench.open(plaintext).talk()

    return run


SKIPPED = {
    **{f"unknown-attribute-{kind}": attribute(kind, b"value") for kind in (0, 5, 127, 128, 255)},
    "unknown-attribute-twice": 2 * attribute(200, b"value"),
    "unknown-attribute-empty": attribute(200, b""),
    "unknown-attribute-64-times": 64 * attribute(200, b"value"),
    "unknown-attribute-of-65513-bytes": attribute(200, bytes(MAX_PLAINTEXT - 3)),
}
for name, plaintext in SKIPPED.items():
    add(name, SKIP_LAW, opens(plaintext))
ADDRESSES = {"ipv4": address("192.0.2.7", 40000), "ipv6": address("2001:db8::7", 40000)}
for name, value in ADDRESSES.items():
    both = attribute(CLIENT, value) + attribute(ORIGINAL, value)
    add(f"open-with-addresses-{name}", "4: attributes 2 and 3 are addresses of family 4 or 6", opens(both), roles=RESPONDER)


@case("known-service", "4: attribute 1 names the requested service", roles=RESPONDER, needs="services")
def known_service(bench: Bench) -> None:
    bench.open(attribute(SERVICE, b"known")).talk()


@case("unknown-service", "4, 5: an unknown service gets REJECT with code 2", roles=RESPONDER, needs="services")
def unknown_service(bench: Bench) -> str:
    wire = bench.initiate()
    wire.send(Type.OPEN, attribute(SERVICE, b"nobody-has-this"))
    return expect_reject(bench, wire, Code.UNKNOWN_SERVICE)


def expect_reject(bench: Bench, wire: Wire, code: int) -> str:
    found = wire.expect(Type.REJECT)
    bench.expect_no_dial()
    if int.from_bytes(found[:2], "big") != code:
        raise Deviation(f"REJECT with code {int.from_bytes(found[:2], 'big')}, where {int(code)} had to come")
    return f"REJECT with code {int(code)}, then {wire.expect_closed()}"


@case("target-refused", "5: REJECT with code 3 when the target refuses", roles=RESPONDER)
def target_refused(bench: Bench) -> str:
    bench.server.close()
    try:
        wire = bench.initiate()
        wire.send(Type.OPEN)
        found = wire.expect(Type.REJECT)
        if int.from_bytes(found[:2], "big") != Code.TARGET_REFUSED:
            raise Deviation(f"REJECT with code {int.from_bytes(found[:2], 'big')}")
        return f"REJECT with code 3, then {wire.stream.expect_end(EOF)}"
    finally:
        bench.server.open()


# -- the implementation is the initiator: the answer to OPEN


def answer(kind: int, plaintext: bytes) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        plain, wire, _ = bench.respond()
        wire.send(kind, plaintext)
        plain.expect_end(RST)
        return f"plain leg: RST; wire leg: {wire.expect_fault()}"

    return run


for name, kind, plaintext in (
    ("data", Type.DATA, WORD),
    ("fin", Type.FIN, b""),
    ("reset", Type.RESET, reason(8)),
    ("open", Type.OPEN, b""),
    ("bye", Type.BYE, b""),
):
    add(f"{name}-in-place-of-accept", ANSWER_LAW, answer(kind, plaintext), roles=INITIATOR)
for name in (
    "cut-in-the-header",
    "cut-in-the-value",
    "longer-than-the-frame",
    "service-twice",
    "keep-of-one-byte",
    "keep-of-no-seconds",
    "keep-twice",
    "65-attributes",
):
    law = "4: attributes that the format does not allow end the connection"
    add(f"accept-with-{name}", law, answer(Type.ACCEPT, ATTRIBUTES[name]), roles=INITIATOR, needs=needed(name))

FOREIGN = {"empty-service": attribute(SERVICE, b""), "short-address": attribute(CLIENT, b"\4")}
for name, plaintext in FOREIGN.items():
    add(
        f"accept-with-{name}",
        "4: a receiver ignores the values of attributes 1 to 3 in ACCEPT",
        opens(plaintext),
        roles=INITIATOR,
    )

REASONS = {
    **{f"code-{code}": reason(code) for code in range(1, 13)},
    "code-0": reason(0),
    "code-65535": reason(65535),
    "text": reason(1, b"no"),
    "text-of-256-bytes": reason(1, b"x" * 256),
    "text-that-is-not-utf-8": reason(1, b"\xff\xfe\x80"),
    "text-with-control-characters": reason(1, b"\x1b[2J\x07\r\n"),
}


@case("data-before-accept-waits", "3: DATA of the application may follow OPEN before ACCEPT, and none is lost", roles=INITIATOR)
def data_before_accept(bench: Bench) -> None:
    plain, wire, _ = bench.respond()
    plain.send(b"early")
    wire.send(Type.ACCEPT)
    wire.expect_data(b"early")
    wire.send(Type.DATA, b"late")
    plain.expect(b"late")


def rejected(plaintext: bytes) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        plain, wire, _ = bench.respond()
        wire.send(Type.REJECT, plaintext)
        wire.stream.finish()
        plain.expect_end(RST)
        return f"plain leg: RST; wire leg: {wire.expect_end()}"

    return run


def was_reset(plaintext: bytes) -> Callable[[Bench], str]:
    def run(bench: Bench) -> str:
        link = bench.open()
        link.talk()
        link.wire.send(Type.RESET, plaintext)
        link.wire.stream.finish()
        link.plain.expect_end(RST)
        return f"plain leg: RST; wire leg: {link.wire.expect_end()}"

    return run


for name, plaintext in REASONS.items():
    if name != "code-11":
        add(f"reject-with-{name}", REASON_LAW, rejected(plaintext), roles=INITIATOR)


@case("reject-with-code-11", "4: after code 11 the initiator may try once more; then the connection is over", roles=INITIATOR)
def rejected_key(bench: Bench) -> str:
    plain, wire, _ = bench.respond()
    wire.send(Type.REJECT, reason(Code.KEY_REVOKED))
    wire.stream.finish()
    ready, _, _ = select.select([plain.sock.fileno(), bench.server.fileno()], [], [], bench.seconds)
    if tried := bench.server.fileno() in ready:
        again = bench.greeter().respond(bench.accept())
        again.expect(Type.OPEN)
        again.send(Type.REJECT, reason(Code.KEY_REVOKED))
        again.stream.finish()
    plain.expect_end(RST)
    if bench.server.drain():
        raise Deviation("OPEN a third time")
    return f"plain leg: RST; {'one more try' if tried else 'no other try'}"


for name in (
    "code-1",
    "code-8",
    "code-0",
    "code-65535",
    "text-of-256-bytes",
    "text-that-is-not-utf-8",
    "text-with-control-characters",
):
    add(f"reset-with-{name}", REASON_LAW, was_reset(REASONS[name]))
REJECTS = {"without-code": b"", "with-half-a-code": b"\0", "with-257-bytes-of-text": reason(1, b"x" * 257)}
for name, plaintext in REJECTS.items():
    add(f"reject-{name}", "4: a reason is a code and at most 256 bytes of text", answer(Type.REJECT, plaintext), roles=INITIATOR)
