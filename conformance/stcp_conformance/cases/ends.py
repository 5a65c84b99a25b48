"""Section 5, the life of a connection: what each end of one leg does to the other."""

from __future__ import annotations

import os
import socket
import threading
import time

from stcp_conformance.bench import Bench
from stcp_conformance.frames import MAX_PLAINTEXT, Code, Type, reason
from stcp_conformance.registry import INITIATOR, RESPONDER, case
from stcp_conformance.sockets import EOF, RST, Deviation

BREAK_LAW = "5: the wire leg ends without FIN, or breaks before both FINs: an RST at the plain leg, never a clean end"


@case("fin-of-the-application", "5: the end of a plain leg becomes FIN after all its bytes; the other direction goes on")
def fin_from_plain(bench: Bench) -> None:
    link = bench.open()
    link.plain.send(b"last words")
    link.plain.finish()
    link.wire.expect_data(b"last words")
    if link.wire.expect(Type.FIN):
        raise Deviation("FIN with a plaintext")
    for word in (b"one", b"two", b"three"):
        link.wire.send(Type.DATA, word)
        link.plain.expect(word)
    link.wire.send(Type.FIN)
    link.plain.expect_end(EOF)
    link.wire.expect_closed()


@case("fin-of-the-peer", "5: FIN becomes the end of the plain leg after all bytes; the other direction goes on")
def fin_from_wire(bench: Bench) -> None:
    link = bench.open()
    link.wire.send(Type.DATA, b"last words")
    link.wire.send(Type.FIN)
    link.plain.expect(b"last words")
    link.plain.expect_end(EOF)
    for word in (b"one", b"two", b"three"):
        link.plain.send(word)
        link.wire.expect_data(word)
    link.plain.finish()
    link.wire.expect(Type.FIN)
    link.wire.expect_closed()


@case("closed-after-both-fins", "5: after both FINs, both sides close the wire leg")
def both_fins(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.finish()
    return link.wire.expect_closed()


@case("fin-without-bytes", "5: a connection without a byte ends in order")
def empty(bench: Bench) -> str:
    link = bench.open()
    link.finish()
    return link.wire.expect_closed()


@case("end-of-stream-after-fin", "5: the end of the wire leg's incoming stream after FIN has no effect")
def half_closed_wire(bench: Bench) -> None:
    link = bench.open()
    link.wire.send(Type.FIN)
    link.wire.stream.finish()
    link.plain.expect_end(EOF)
    word = os.urandom(200_000)
    sender = threading.Thread(target=link.plain.send, args=(word,))
    sender.start()
    link.wire.expect_data(word)
    sender.join()
    link.plain.finish()
    link.wire.expect(Type.FIN)


@case("end-of-stream-without-fin", BREAK_LAW)
def truncated(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.wire.stream.finish()
    link.plain.expect_end(RST)
    return f"plain leg: RST; wire leg: {link.wire.expect_fault()}"


@case("end-of-stream-in-a-frame", BREAK_LAW)
def truncated_frame(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.wire.stream.send(link.wire.seal(Type.DATA, b"cut")[:-3])
    link.wire.stream.finish()
    link.plain.expect_end(RST)
    return f"plain leg: RST; wire leg: {link.wire.expect_fault()}"


@case("reset-of-the-wire-leg", BREAK_LAW)
def wire_reset(bench: Bench) -> None:
    link = bench.open()
    link.talk()
    link.wire.stream.reset()
    link.plain.expect_end(RST)


@case("reset-of-the-wire-leg-after-one-fin", BREAK_LAW)
def wire_reset_after_fin(bench: Bench) -> None:
    link = bench.open()
    link.plain.finish()
    link.wire.expect(Type.FIN)
    link.wire.stream.reset()
    link.plain.expect_end(RST)


@case("end-of-stream-after-the-applications-fin", BREAK_LAW)
def truncated_after_fin(bench: Bench) -> None:
    link = bench.open()
    link.plain.finish()
    link.wire.expect(Type.FIN)
    link.wire.stream.finish()
    link.plain.expect_end(RST)


@case("reset-of-the-plain-leg", "5: a plain leg is reset: RESET with code 8, then the sending side is shut down")
def plain_reset(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.plain.reset()
    return link.wire.expect_end(Code.PLAIN_RESET, silent=False, ends=(EOF,))


@case(
    "reset-of-the-plain-leg-after-its-end", "5: a plain leg may be reset after FIN went both ways or one way: RESET follows FIN"
)
def plain_reset_after_fin(bench: Bench) -> str:
    link = bench.open()
    link.wire.send(Type.FIN)
    link.plain.expect_end(EOF)
    link.plain.reset()
    return link.wire.expect_end(Code.PLAIN_RESET, silent=False, ends=(EOF,))


@case("reset-arrives-despite-unread-bytes", "5: the sender of RESET reads and discards, so that no TCP RST destroys RESET")
def reset_survives(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    for _ in range(8):
        link.wire.send(Type.DATA, bytes(4096))
    link.plain.reset()
    for _ in range(8):
        link.wire.send(Type.DATA, bytes(4096))
    return link.wire.expect_end(Code.PLAIN_RESET, silent=False, ends=(EOF,))


@case("lingers-after-reset", "5: the sender of RESET reads and discards for two seconds, or until the peer closes")
def lingers(bench: Bench) -> str:
    link = bench.open()
    link.talk()
    link.plain.reset()
    seen = link.wire.expect_end(Code.PLAIN_RESET, silent=False, ends=(EOF,))
    try:
        for _ in range(10):
            link.wire.stream.sock.sendall(link.wire.seal(Type.DATA, bytes(100)))
            time.sleep(0.02)
    except ConnectionError:
        raise Deviation(f"wire leg: {seen}, but bytes that were on their way met a closed socket") from None
    return f"{seen}, and what came later was discarded"


@case("reset-of-the-peer", "5: RESET arrives: a TCP RST at the plain leg")
def reset_from_wire(bench: Bench) -> None:
    link = bench.open()
    link.talk()
    link.wire.send(Type.RESET, reason(Code.PLAIN_RESET, b"gone"))
    link.plain.expect_end(RST)


@case("frames-after-reset", "3: RESET is the last frame: nothing behind it reaches the application")
def after_reset(bench: Bench) -> None:
    link = bench.open()
    link.talk()
    link.wire.stream.send(link.wire.seal(Type.RESET, reason(1)) + link.wire.seal(Type.DATA, b"behind"))
    link.plain.expect_end(RST)


@case("nothing-before-accept", "5: REJECT arrives: a TCP RST at the plain leg, and no byte before it", roles=INITIATOR)
def reject(bench: Bench) -> None:
    plain, wire, _ = bench.respond()
    plain.send(b"early")
    wire.send(Type.REJECT, reason(Code.TARGET_REFUSED))
    wire.stream.finish()
    plain.expect_end(RST)


@case("end-of-stream-before-accept", BREAK_LAW, roles=INITIATOR)
def closed_before_accept(bench: Bench) -> None:
    plain, wire, _ = bench.respond()
    wire.stream.finish()
    plain.expect_end(RST)


@case(
    "application-leaves-before-accept",
    "5: a plain leg is reset before ACCEPT: RESET, at the latest after ACCEPT",
    roles=INITIATOR,
)
def leaves_early(bench: Bench) -> str:
    plain, wire, _ = bench.respond()
    plain.reset()
    wire.send(Type.ACCEPT)
    return wire.expect_end(Code.PLAIN_RESET)


@case("fin-before-accept", "3, 5: FIN may follow OPEN before ACCEPT, and the connection goes on", roles=INITIATOR)
def fin_before_accept(bench: Bench) -> None:
    plain, wire, _ = bench.respond()
    plain.send(b"question")
    plain.finish()
    wire.send(Type.ACCEPT)
    wire.expect_data(b"question")
    wire.expect(Type.FIN)
    wire.send(Type.DATA, b"answer")
    wire.send(Type.FIN)
    plain.expect(b"answer")
    plain.expect_end(EOF)


@case("server-speaks-first", "5: DATA flows both ways as soon as ACCEPT was sent", roles=RESPONDER)
def server_first(bench: Bench) -> None:
    wire = bench.initiate()
    wire.send(Type.OPEN)
    bench.target().send(b"220 ready")
    wire.expect(Type.ACCEPT)
    wire.expect_data(b"220 ready")


@case("data-behind-accept", "2, 5: ACCEPT and DATA may come in one segment", roles=INITIATOR)
def accept_and_data(bench: Bench) -> None:
    plain, wire, _ = bench.respond()
    wire.stream.send(wire.seal(Type.ACCEPT) + wire.seal(Type.DATA, b"220 ready") + wire.seal(Type.FIN))
    plain.expect(b"220 ready")
    plain.expect_end(EOF)


@case("connections-side-by-side", "5: each wire leg carries one connection; several do not disturb each other")
def side_by_side(bench: Bench) -> None:
    links = [bench.open() for _ in range(8)]
    for number, link in enumerate(links):
        link.talk(bytes([number]) * 100)
    links[0].wire.stream.send(bytes(100))
    for link in links[1:]:
        link.talk()


def fill(sock: socket.socket, block: bytes, most: int) -> int:
    """Send blocks until the other side takes no more for half a second. Returns the bytes that went."""
    sent = 0
    sock.settimeout(0.5)
    try:
        while sent < most:
            sent += sock.send(block)
    except TimeoutError:
        return sent
    raise Deviation(f"{most} bytes were taken, although their reader stands still")


MOST = 256 << 20
"""Bytes that no implementation may hold for a reader that stands still."""


@case("back-pressure-to-the-application", "5: a side that cannot pass bytes on stops reading, and goes on later", slow=True)
def pressure_on_plain(bench: Bench) -> None:
    link = bench.open()
    sent = fill(link.plain.sock, bytes(65536), MOST)
    link.plain.sock.settimeout(bench.seconds)
    link.wire.expect_data(bytes(sent))


@case("back-pressure-to-the-peer", "5: a side that cannot pass bytes on stops reading, and goes on later", slow=True)
def pressure_on_wire(bench: Bench) -> None:
    link = bench.open()
    sock, sent, rest = link.wire.stream.sock, 0, b""
    sock.settimeout(0.5)
    try:
        while sent < MOST:
            rest = link.wire.seal(Type.DATA, bytes(MAX_PLAINTEXT))
            sent += MAX_PLAINTEXT
            while rest:
                rest = rest[sock.send(rest) :]
    except TimeoutError:
        pass
    else:
        raise Deviation(f"{MOST} bytes were taken, although their reader stands still")
    sock.settimeout(bench.seconds)
    sender = threading.Thread(target=link.wire.stream.send, args=(rest,))
    sender.start()
    if link.plain.exactly(sent).strip(b"\0"):
        raise Deviation("plain leg: other bytes than were sent")
    sender.join()
