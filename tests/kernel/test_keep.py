"""A wire leg comes back after both FINs, as it was before the handover, and nothing of the next connection is read."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time

import pytest

from stcp_proxy.relay import kernel_abi as abi

from .kept import end_application, give_back, keep, take
from .peer import (
    DATA,
    FIN,
    OPEN,
    PATIENCE,
    RESET,
    Cipher,
    Relay,
    eventually,
    how_it_ends,
    noise,
    read_exactly,
    references,
    stat,
    tcp_pair,
    ulp,
)
from .refusals import refused

NEXT = Cipher(bytes(32), 77).seal(OPEN, b"attributes") + Cipher(bytes(32), 78).seal(DATA, b"early")
"""What the peer sends for the next connection, with keys that the module does not have."""
NOTSENT_LOWAT = 25
SO_MEMINFO = 55


def check_usable(r: Relay) -> None:
    """User space reads, writes, polls and sets options as on any other socket."""
    poll = select.poll()
    poll.register(r.wire, select.POLLIN | select.POLLRDHUP)
    assert poll.poll(0) == []
    r.peer.sendall(b"to user space")
    assert poll.poll(PATIENCE * 1000) == [(r.wire.fileno(), select.POLLIN)]
    assert read_exactly(r.wire, 13) == b"to user space"
    r.wire.sendall(b"from user space")
    assert read_exactly(r.peer, 15) == b"from user space"
    r.wire.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
    r.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    with refused(errno.ENOTCONN):
        r.status()
    r.peer.shutdown(socket.SHUT_WR)
    assert r.wire.recv(1) == b""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("first", ["application", "peer"])
def test_the_leg_comes_back_after_both_fins(family: socket.AddressFamily, first: str) -> None:
    before = stat()["LegsGivenBack"]
    r = keep(family=family, counters=((1 << 20) - 1, 5))
    r.check_alive()
    with refused(errno.EBUSY):
        give_back(r)
    if first == "application":
        end_application(r)
        r.send(FIN)
    else:
        r.send(FIN)
        assert how_it_ends(r.app) == (0, "eof")
        assert not r.status().kept
        end_application(r)
    status = take(r)
    assert (status.send_counter, status.receive_counter) == ((1 << 20) + 1, 7)
    assert (status.bytes_to_wire, status.bytes_to_plain) == (4, 4)
    assert stat()["LegsGivenBack"] == before + 1
    check_usable(r)
    r.close()
    eventually(lambda: references() == 0, "a leg keeps its reference")


def test_options_that_the_handover_changed_are_as_before() -> None:
    app, plain, peer, wire = *tcp_pair(), *tcp_pair()
    wire.setsockopt(socket.SOL_TCP, NOTSENT_LOWAT, 12345)
    wire.setsockopt(socket.SOL_TCP, socket.TCP_USER_TIMEOUT, 54321)
    r = keep(legs=(app, plain, peer, wire))
    assert wire.getsockopt(socket.SOL_TCP, NOTSENT_LOWAT) != 12345
    end_application(r)
    r.send(FIN)
    take(r)
    assert wire.getsockopt(socket.SOL_TCP, NOTSENT_LOWAT) == 12345
    assert wire.getsockopt(socket.SOL_TCP, socket.TCP_USER_TIMEOUT) == 54321
    assert wire.getsockopt(socket.SOL_TCP, abi.TCP_ULP, 16).rstrip(b"\0") == b"stcp"
    r.close()


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("when", ["with FIN", "later"])
def test_bytes_behind_the_last_fin_stay_in_the_queue(pieces: str, when: str) -> None:
    r = keep()
    r.peer.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
    end_application(r)
    raw = r.down.seal(DATA, b"last") + r.down.seal(FIN) + (NEXT if when == "with FIN" else b"")
    for at in range(0, len(raw), len(raw) if pieces == "whole" else 1):
        r.peer.sendall(raw[at : at + (len(raw) if pieces == "whole" else 1)])
    assert read_exactly(r.app, 4) == b"last"
    assert how_it_ends(r.app) == (0, "eof")
    if when == "later":
        r.wait_ended()
        r.peer.sendall(NEXT)
        time.sleep(0.05)
        assert r.wait_ended().kept
    take(r)
    assert read_exactly(r.wire, len(NEXT)) == NEXT
    check_usable(r)
    r.close()


def slow() -> Relay:
    """A relay whose plain leg takes little, and whose application reads nothing."""
    app, plain, peer, wire = *tcp_pair(), *tcp_pair()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, 1)
    return keep(legs=(app, plain, peer, wire))


@pytest.mark.parametrize("how", ["at once", "later", "byte by byte", "before ours"])
def test_a_slow_application_does_not_hold_the_leg_back(how: str) -> None:
    """The first frame fills the send buffer, so the second goes beyond it."""
    r = slow()
    data = noise(60_000)
    if how != "before ours":
        end_application(r)
    r.send(DATA, data)
    r.send(DATA, data[1:])
    if how != "at once":
        eventually(lambda: r.status().receive_counter == 2, "the frames are not open")
        time.sleep(0.2)
        assert not r.status().ended
    fin = r.down.seal(FIN)
    for at in range(0, len(fin), 1 if how == "byte by byte" else len(fin)):
        r.peer.sendall(fin[at : at + (1 if how == "byte by byte" else len(fin))])
    if how == "before ours":
        time.sleep(0.2)
        assert r.status().receive_counter == 2  # there is no hurry yet
        end_application(r)
    status = take(r)
    assert status.bytes_to_plain == 2 * len(data) - 1
    check_usable(r)
    assert read_exactly(r.app, 2 * len(data) - 1) == data + data[1:]
    assert how_it_ends(r.app) == (0, "eof")
    r.close()


def test_only_one_frame_goes_beyond_the_send_buffer() -> None:
    """Back-pressure stays: where more than FIN is to come, the wire waits for the application."""
    r = slow()
    end_application(r)
    data = noise(60_000)
    for at in range(3):
        r.send(DATA, data[at:])
    r.send(FIN)
    time.sleep(0.5)
    status = r.status()
    assert not status.ended
    assert status.receive_counter <= 2
    assert read_exactly(r.app, 3 * len(data) - 3) == data + data[1:] + data[2:]
    take(r)
    r.close()


def test_reset_that_crosses() -> None:
    """Before our FIN has left, RESET belongs to this connection; afterwards it is user space's to read."""
    r = keep()
    r.send(FIN)
    r.send(RESET, b"\x00\x08")
    assert r.wait_ended().end is abi.End.PEER_RESET
    with refused(errno.ESHUTDOWN):
        give_back(r)
    r.close()

    r = keep()
    r.send(FIN)
    raw = r.down.seal(RESET, b"\x00\x08in two pieces")
    r.peer.sendall(raw[:7])
    eventually(lambda: r.status().buffered > 0, "the piece is not there")
    end_application(r)
    time.sleep(0.1)
    assert not r.status().ended
    r.peer.sendall(raw[7:])
    status = r.wait_ended()
    assert (status.end, status.text, status.kept) == (abi.End.PEER_RESET, b"in two pieces", False)
    r.close()

    r = keep()
    end_application(r)
    r.send(FIN)
    raw = r.down.seal(RESET, b"\x00\x08")
    r.peer.sendall(raw)
    take(r)
    assert read_exactly(r.wire, len(raw)) == raw
    r.close()


def narrow() -> Relay:
    """A relay whose wire leg takes little, and whose peer reads nothing."""
    app, plain, peer, wire = *tcp_pair(), *tcp_pair()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return keep(legs=(app, plain, peer, wire))


def fill(r: Relay) -> int:
    """Sends frames of 1,000 bytes until TCP takes no more, by SO_MEMINFO. Returns how many."""
    for sent in range(1, 100):
        r.app.sendall(bytes(1000))
        eventually(lambda sent=sent: r.status().send_counter == sent, "a frame is not sealed")  # type: ignore[misc]
        time.sleep(0.1)
        memory = struct.unpack("9I", r.wire.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
        if memory[5] >= memory[3]:  # what is queued to be sent, and the send buffer
            assert not r.status().buffered
            return sent
    raise AssertionError("the send buffer does not get full")


def test_our_fin_has_left_when_tcp_has_taken_all_of_it() -> None:
    """The send buffer is full. FIN stays in the module, and the leg with it, unless TCP has put it into its last segment."""
    r = narrow()
    sent = fill(r)
    r.app.shutdown(socket.SHUT_WR)
    r.send(FIN)
    assert how_it_ends(r.app) == (0, "eof")
    eventually(lambda: r.status().send_counter == sent + 1, "our FIN is not sealed")
    time.sleep(0.2)
    if not r.status().ended:
        with refused(errno.EBUSY):
            give_back(r)
    for _ in range(sent):
        assert r.read_frame() == (DATA, bytes(1000))
    assert r.read_frame() == (FIN, b"")
    take(r)
    check_usable(r)
    r.close()


@pytest.mark.parametrize("how", ["application", "frame", "abort", "truncated", "OPEN too early", "handover"])
def test_a_connection_that_is_not_over_in_order_ends_the_leg(how: str) -> None:
    ends = {"application": abi.End.PLAIN_RESET, "abort": abi.End.ABORTED, "truncated": abi.End.TRUNCATED}
    early = (lambda cipher: cipher.seal(FIN) + NEXT) if how == "handover" else None
    r = keep(linger_ms=100, wire_bytes=early)
    if how == "application":
        r.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        r.app.close()
    elif how == "abort":
        r.wire.setsockopt(abi.SOL_STCP, abi.ABORT, abi.ABORT_ARGS.pack(abi.INTERFACE, 7, 0, b""))
    elif how == "truncated":
        r.peer.shutdown(socket.SHUT_WR)
    elif how == "OPEN too early":
        r.send(FIN)
        r.peer.sendall(NEXT)
    elif how == "frame":
        end_application(r)
        r.send(DATA, b"x")
        r.peer.sendall(NEXT)
    status = r.wait_ended()
    assert (status.end, status.kept) == (ends.get(how, abi.End.BAD_FRAME), False)
    with refused(errno.ESHUTDOWN):
        give_back(r)
    r.close()


def test_bytes_of_the_next_connection_that_the_handover_brings_are_an_error() -> None:
    """Also where the application has ended already: our FIN had not left when they were read."""
    for _ in range(20):
        app, plain, peer, wire = *tcp_pair(), *tcp_pair()
        app.shutdown(socket.SHUT_WR)
        r = keep(legs=(app, plain, peer, wire), wire_bytes=lambda cipher: cipher.seal(FIN) + NEXT)
        status = r.wait_ended()
        assert (status.end, status.kept) == (abi.End.BAD_FRAME, False)
        r.close()


def test_the_peer_may_end_the_stream_behind_its_fin() -> None:
    r = keep()
    end_application(r)
    r.send(FIN)
    r.peer.shutdown(socket.SHUT_WR)
    take(r)
    assert r.wire.recv(1) == b""
    r.close()


def test_what_cannot_be_given_back() -> None:
    near, far = tcp_pair()
    ulp(near)
    with refused(errno.ENOTCONN):
        near.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"")
    r = Relay()
    end_application(r)
    r.send(FIN)
    assert not r.wait_ended().kept
    with refused(errno.ESHUTDOWN):
        give_back(r)
    assert how_it_ends(r.peer) == (0, "eof")
    r.close()
    r = keep()
    end_application(r)
    r.send(FIN)
    r.wait_ended()
    with refused(errno.EINVAL):
        r.wire.setsockopt(abi.SOL_STCP, abi.GIVE_BACK, b"x")
    give_back(r)
    with refused(errno.ENOTCONN):
        give_back(r)
    for sock in (near, far):
        sock.close()
    r.close()
