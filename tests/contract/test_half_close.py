"""Each direction ends with its own FIN, and the other goes on for as long as it has something to say."""

from __future__ import annotations

import socket

import pytest

from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason

from .harness import MakePair, MakeRig, seal_all
from .legs import Background, digest, noise, quiet, read_exactly, read_to_end, reset, send_and_end, wait_reset


def test_eof_of_the_application_is_fin_behind_all_data(rig: MakeRig) -> None:
    r = rig()
    data = noise(500_000)
    writer = Background(lambda: send_and_end(r.app, data))
    assert digest(r.peer.read_to_fin()) == digest(data)
    writer.join()
    assert quiet(r.peer.sock), "nothing follows FIN by itself"
    assert not r.end.called


def test_fin_is_eof_at_the_application_behind_all_data(rig: MakeRig) -> None:
    r = rig()
    data = noise(500_000)
    sealed = seal_all(r.peer.sealer, data) + r.peer.sealer.seal(FrameType.FIN)
    writer = Background(lambda: r.peer.sock.sendall(sealed))
    got, ending = read_to_end(r.app)
    writer.join()
    assert (digest(got), ending) == (digest(data), "eof")
    assert not r.end.called


def test_the_reverse_direction_flows_after_the_application_has_ended(rig: MakeRig) -> None:
    r = rig()
    r.app.sendall(b"question")
    r.app.shutdown(socket.SHUT_WR)
    assert r.peer.read_to_fin() == b"question"
    data = noise(1_000_000)
    sealed = seal_all(r.peer.sealer, data) + r.peer.sealer.seal(FrameType.FIN)
    writer = Background(lambda: r.peer.sock.sendall(sealed))
    got, ending = read_to_end(r.app)
    writer.join()
    assert (digest(got), ending) == (digest(data), "eof")
    assert r.peer.read_to_end() == ([], "eof"), "after both FINs the wire is closed, cleanly"
    end = r.end.wait()
    assert (end.reason, end.bytes_to_wire, end.bytes_to_plain) == (EndReason.FINISHED, 8, len(data))


def test_the_reverse_direction_flows_after_the_peer_has_ended(rig: MakeRig) -> None:
    r = rig()
    r.peer.send_data(b"question")
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"question", "eof")
    data = noise(1_000_000)
    writer = Background(lambda: send_and_end(r.app, data))
    assert digest(r.peer.read_to_fin()) == digest(data)
    writer.join()
    assert r.peer.read_to_end() == ([], "eof")
    end = r.end.wait()
    assert (end.reason, end.bytes_to_wire, end.bytes_to_plain) == (EndReason.FINISHED, len(data), 8)


def test_single_bytes_flow_back_for_long_after_fin(rig: MakeRig) -> None:
    r = rig()
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    for i in range(100):
        r.peer.send_data(bytes([i]))
        assert read_exactly(r.app, 1) == bytes([i])
    assert not r.end.called


def test_both_ends_at_once(rig: MakeRig) -> None:
    r = rig()
    r.peer.send_fin()
    r.app.shutdown(socket.SHUT_WR)
    assert read_to_end(r.app) == (b"", "eof")
    assert r.peer.read_to_end() == ([(FrameType.FIN, b"")], "eof")
    assert r.end.wait().reason is EndReason.FINISHED


def test_the_application_closes_at_once_after_writing(rig: MakeRig) -> None:
    """close() with nothing unread is an EOF like any other, however fast it follows."""
    r = rig()
    data = noise(100_000)
    r.app.sendall(data)
    r.app.close()
    assert digest(r.peer.read_to_fin()) == digest(data)
    r.peer.send_fin()
    assert r.end.wait().reason is EndReason.FINISHED


def test_the_peer_closes_its_sending_side_behind_fin(rig: MakeRig) -> None:
    """FIN said that direction is over; that TCP says it too cuts nothing off."""
    r = rig()
    r.peer.send_fin()
    r.peer.sock.shutdown(socket.SHUT_WR)
    assert read_to_end(r.app) == (b"", "eof")
    r.app.sendall(b"still here")
    r.app.shutdown(socket.SHUT_WR)
    assert r.peer.read_to_fin() == b"still here"
    assert r.peer.read_to_end() == ([], "eof")
    assert r.end.wait().reason is EndReason.FINISHED


def test_the_peer_closes_its_sending_side_behind_fin_and_then_breaks(rig: MakeRig) -> None:
    """Only the reverse direction is left, and it has nothing to say: that the wire is gone must still be noticed."""
    r = rig()
    r.peer.send_fin()
    r.peer.sock.shutdown(socket.SHUT_WR)
    assert read_to_end(r.app) == (b"", "eof")
    r.app.sendall(b"x")
    assert r.peer.read_data(1) == b"x"
    reset(r.peer.sock)
    wait_reset(r.app)
    assert r.end.wait().reason is EndReason.TRUNCATED


def test_the_wire_ends_inside_a_frame_behind_fin(rig: MakeRig) -> None:
    """Only RESET may follow FIN, and it was cut: the reverse direction may not go on as if nothing had been said."""
    r = rig()
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"", "eof")
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.RESET, b"\x00\x08")[:-1])
    r.peer.sock.shutdown(socket.SHUT_WR)
    wait_reset(r.app)
    assert r.end.wait().reason is EndReason.TRUNCATED


def test_the_peer_is_gone_behind_fin(rig: MakeRig) -> None:
    """FIN, and then the whole wire leg closed: the reverse direction has nobody to go to."""
    r = rig()
    r.peer.send_fin()
    r.peer.sock.close()
    assert read_to_end(r.app) == (b"", "eof")
    r.app.sendall(b"to nobody")
    wait_reset(r.app)
    assert r.end.wait().reason is EndReason.TRUNCATED


@pytest.mark.parametrize("first", [0, 1])
def test_half_close_through_two_engines(pair: MakePair, first: int) -> None:
    p = pair()
    near, far = p.apps[first], p.apps[1 - first]
    near.sendall(b"question")
    near.shutdown(socket.SHUT_WR)
    assert read_to_end(far) == (b"question", "eof")
    data = noise(2_000_000)
    writer = Background(lambda: send_and_end(far, data))
    got, ending = read_to_end(near)
    writer.join()
    assert (digest(got), ending) == (digest(data), "eof")
    assert [end.wait().reason for end in p.ends] == [EndReason.FINISHED] * 2


def test_both_ends_at_once_through_two_engines(pair: MakePair) -> None:
    for _ in range(20):
        p = pair()
        for app in p.apps:
            app.sendall(b"x" * 1000)
            app.shutdown(socket.SHUT_WR)
        for app in p.apps:
            assert read_to_end(app) == (b"x" * 1000, "eof")
        assert [end.wait().reason for end in p.ends] == [EndReason.FINISHED] * 2
