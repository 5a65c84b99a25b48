"""A reset of one plain leg is a reset of the other, in every direction and at every stage; it is never a clean EOF."""

from __future__ import annotations

import contextlib
import socket

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason

from .harness import MakePair, MakeRig, seal_all
from .legs import noise, read_exactly, read_to_end, reset, send_until_stalled, wait_reset


def test_a_reset_application_is_a_reset_frame(rig: MakeRig) -> None:
    r = rig()
    r.check_alive()
    reset(r.app)
    r.peer.expect_reset(Code.PLAIN_RESET)
    assert r.peer.read_to_end() == ([], "eof"), "RESET is the last frame, and TCP does not destroy it"
    r.peer.sock.close()
    end = r.end.wait()
    assert (end.reason, end.code, end.bytes_to_wire, end.bytes_to_plain) == (EndReason.PLAIN_RESET, Code.PLAIN_RESET, 4, 4)


def test_what_was_read_before_the_reset_arrives_whole_or_not_at_all(rig: MakeRig) -> None:
    r = rig()
    data = noise(200_000)
    r.app.sendall(data)
    reset(r.app)
    frames, ending = r.peer.read_to_end()
    assert [kind for kind, _ in frames[-1:]] == [FrameType.RESET]
    assert data.startswith(b"".join(content for kind, content in frames if kind is FrameType.DATA))
    assert ending == "eof"
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


def test_reset_after_the_application_had_ended_its_direction(rig: MakeRig) -> None:
    r = rig()
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    reset(r.app)
    r.peer.expect_reset(Code.PLAIN_RESET)
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


def test_reset_after_the_peer_had_ended_its_direction(rig: MakeRig) -> None:
    r = rig()
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"", "eof")
    reset(r.app)
    r.peer.expect_reset(Code.PLAIN_RESET)
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


def test_the_application_closes_with_bytes_unread(rig: MakeRig) -> None:
    """The kernel makes a reset of it."""
    r = rig()
    r.peer.send_data(b"unread")
    assert r.app.recv(1, socket.MSG_PEEK)
    r.app.close()
    r.peer.expect_reset(Code.PLAIN_RESET)
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


def test_the_application_is_gone_while_the_peer_still_talks(rig: MakeRig) -> None:
    """close() without reading is an EOF at first; that nobody reads the answer shows only when it is sent."""
    r = rig()
    r.app.sendall(b"question")
    r.app.close()
    assert r.peer.read_to_fin() == b"question"
    r.peer.send_data(b"answer")
    r.peer.send_data(b"more of it")
    r.peer.expect_reset(Code.PLAIN_RESET)
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


def test_reset_while_the_wire_is_stalled(rig: MakeRig) -> None:
    """The application floods a peer that does not read, then resets. What the peer reads later ends in RESET, or in nothing."""
    r = rig(buffers=1 << 16)
    send_until_stalled(r.app, lambda: noise(1 << 16), limit=1 << 24)
    reset(r.app)
    frames, ending = r.peer.read_to_end()
    assert frames[-1][0] is FrameType.RESET
    assert ending == "eof"
    r.peer.sock.close()
    assert r.end.wait().reason is EndReason.PLAIN_RESET


@pytest.mark.parametrize(
    ("content", "code", "text"),
    [
        (b"\x00\x08", 8, ""),
        (b"\x00\x07shutting down", 7, "shutting down"),
        (b"\xff\xffcode of a later version", 0xFFFF, "code of a later version"),
        (b"\x00\x0c" + "größer".encode(), 12, "größer"),
        (b"\x00\x0a" + b"x" * 256, 10, "x" * 256),
    ],
)
def test_reset_from_the_wire_is_a_reset_at_the_application(rig: MakeRig, content: bytes, code: int, text: str) -> None:
    r = rig()
    r.check_alive()
    r.peer.send(FrameType.RESET, content)
    assert read_to_end(r.app) == (b"", "reset")
    end = r.end.wait()
    assert (end.reason, end.code, end.text) == (EndReason.PEER_RESET, code, text)


def test_reset_text_that_is_not_utf8(rig: MakeRig) -> None:
    """The frame is authentic and ends the connection; that its text is broken changes neither."""
    r = rig()
    r.peer.send(FrameType.RESET, b"\x00\x08\xff\xfe")
    assert read_to_end(r.app) == (b"", "reset")
    end = r.end.wait()
    assert (end.reason, end.code) == (EndReason.PEER_RESET, 8)


def test_reset_behind_data_in_one_segment(rig: MakeRig) -> None:
    r = rig()
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.DATA, b"last words") + r.peer.sealer.seal(FrameType.RESET, b"\x00\x08"))
    got, ending = read_to_end(r.app)
    assert b"last words".startswith(got)
    assert ending == "reset"
    assert r.end.wait().reason is EndReason.PEER_RESET


def test_reset_from_the_wire_after_the_application_had_ended(rig: MakeRig) -> None:
    r = rig()
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    r.peer.send(FrameType.RESET, b"\x00\x08")
    assert read_to_end(r.app) == (b"", "reset")
    assert r.end.wait().reason is EndReason.PEER_RESET


def test_reset_from_the_wire_after_fin(rig: MakeRig) -> None:
    r = rig()
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"", "eof")
    r.peer.send(FrameType.RESET, b"\x00\x08")
    wait_reset(r.app)
    assert r.end.wait().reason is EndReason.PEER_RESET


def test_reset_from_the_wire_reaches_an_application_that_does_not_read(rig: MakeRig) -> None:
    """RESET stands behind data for which the application has no room: when it makes room, it sees no clean EOF."""
    r = rig(buffers=1 << 16)
    data = noise(400_000)
    r.peer.sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):  # a part is enough: what is cut off is a truncation
        r.peer.sock.sendall(seal_all(r.peer.sealer, data) + r.peer.sealer.seal(FrameType.RESET, b"\x00\x08"))
    r.peer.sock.close()
    got, ending = read_to_end(r.app)
    assert data.startswith(got)
    assert ending == "reset"
    assert r.end.wait().reason in (EndReason.PEER_RESET, EndReason.TRUNCATED)


# -- through two engines: what the application at the other end sees -------------------------------------------------------

SIDES = pytest.mark.parametrize("side", [0, 1])


@SIDES
def test_reset_reaches_the_other_application(pair: MakePair, side: int) -> None:
    p = pair()
    near, far = p.apps[side], p.apps[1 - side]
    near.sendall(b"x")
    assert read_exactly(far, 1) == b"x"
    reset(near)
    assert read_to_end(far) == (b"", "reset")
    assert p.ends[side].wait().reason is EndReason.PLAIN_RESET
    end = p.ends[1 - side].wait()
    assert (end.reason, end.code) == (EndReason.PEER_RESET, Code.PLAIN_RESET)


@SIDES
def test_reset_after_own_half_close_reaches_the_other_application(pair: MakePair, side: int) -> None:
    p = pair()
    near, far = p.apps[side], p.apps[1 - side]
    near.shutdown(socket.SHUT_WR)
    assert read_to_end(far) == (b"", "eof")
    reset(near)
    wait_reset(far)
    assert p.ends[side].wait().reason is EndReason.PLAIN_RESET
    assert p.ends[1 - side].wait().reason is EndReason.PEER_RESET


@SIDES
def test_reset_after_the_others_half_close_reaches_the_other_application(pair: MakePair, side: int) -> None:
    p = pair()
    near, far = p.apps[side], p.apps[1 - side]
    far.shutdown(socket.SHUT_WR)
    assert read_to_end(near) == (b"", "eof")
    reset(near)
    assert read_to_end(far) == (b"", "reset")
    assert p.ends[side].wait().reason is EndReason.PLAIN_RESET
    assert p.ends[1 - side].wait().reason is EndReason.PEER_RESET


@SIDES
def test_reset_in_the_middle_of_a_transfer_reaches_the_other_application(pair: MakePair, side: int) -> None:
    p = pair()
    near, far = p.apps[side], p.apps[1 - side]
    data = noise(300_000)
    near.sendall(data[:100_000])
    assert read_exactly(far, 50_000) == data[:50_000]
    reset(near)
    got, ending = read_to_end(far)
    assert data[50_000:].startswith(got)
    assert ending == "reset"


@SIDES
def test_reset_by_the_reader_stops_the_writer(pair: MakePair, side: int) -> None:
    p = pair(buffers=1 << 16)
    near, far = p.apps[side], p.apps[1 - side]
    send_until_stalled(near, lambda: noise(1 << 16), limit=1 << 24)
    reset(far)
    wait_reset(near)
