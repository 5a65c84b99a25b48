"""The wire leg ends without FIN: somebody cut it, or the peer crashed. The application gets a reset, never a clean EOF."""

from __future__ import annotations

import contextlib
import socket

import pytest

from stcp_proxy.protocol.wire import FRAME_OVERHEAD, HEADER_LEN, FrameType
from stcp_proxy.relay.engine import EndReason, RelayEnd

from .harness import MakePair, MakeRig, Rig, seal_all
from .legs import noise, read_exactly, read_to_end, reset, wait_reset

FRAME = FRAME_OVERHEAD + 9


def assert_truncated(r: Rig, received: bytes = b"") -> RelayEnd:
    """The application has `received` and then a reset."""
    assert read_to_end(r.app) == (received, "reset")
    r.peer.sock.close()
    end = r.end.wait()
    assert end.reason is EndReason.TRUNCATED
    return end


@pytest.mark.parametrize("how", ["shutdown", "close", "reset"])
def test_the_wire_ends_at_rest(rig: MakeRig, how: str) -> None:
    r = rig()
    r.check_alive()
    end_wire(r, how)
    assert_truncated(r)


@pytest.mark.parametrize("how", ["shutdown", "close"])
@pytest.mark.parametrize("cut", [1, 2, 3, HEADER_LEN, HEADER_LEN + 1, HEADER_LEN + 9, FRAME // 2, FRAME - 16, FRAME - 1])
def test_the_wire_ends_inside_a_frame(rig: MakeRig, how: str, cut: int) -> None:
    r = rig()
    r.check_alive()
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.DATA, b"cut short")[:cut])
    end_wire(r, how)
    assert_truncated(r)


def test_the_wire_ends_inside_fin(rig: MakeRig) -> None:
    r = rig()
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.FIN)[:-1])
    r.peer.sock.shutdown(socket.SHUT_WR)
    assert_truncated(r)


def test_a_frame_and_a_cut_one_in_one_segment(rig: MakeRig) -> None:
    """What authenticated may still arrive; what was cut may not, and the end is a reset."""
    r = rig()
    r.peer.sock.sendall(r.peer.sealer.seal(FrameType.DATA, b"whole") + r.peer.sealer.seal(FrameType.DATA, b"cut")[:-1])
    r.peer.sock.close()
    got, ending = read_to_end(r.app)
    assert got in (b"", b"whole")
    assert ending == "reset"
    assert r.end.wait().reason is EndReason.TRUNCATED


def test_data_and_then_the_end(rig: MakeRig) -> None:
    r = rig()
    r.peer.send_data(b"read before")
    assert read_exactly(r.app, 11) == b"read before"
    r.peer.sock.close()
    end = assert_truncated(r)
    assert (end.bytes_to_wire, end.bytes_to_plain) == (0, 11)


@pytest.mark.parametrize("how", ["shutdown", "close", "reset"])
def test_the_wire_ends_after_the_application_had_ended(rig: MakeRig, how: str) -> None:
    r = rig()
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    end_wire(r, how)
    assert_truncated(r)


def test_the_wire_breaks_after_fin(rig: MakeRig) -> None:
    """The peer's direction was over, the other was not: its bytes have nowhere to go, and the application must hear of it."""
    r = rig()
    r.peer.send_fin()
    assert read_to_end(r.app) == (b"", "eof")
    reset(r.peer.sock)
    wait_reset(r.app)
    assert r.end.wait().reason is EndReason.TRUNCATED


def test_the_wire_breaks_while_the_application_sends(rig: MakeRig) -> None:
    r = rig()
    r.app.sendall(noise(100_000))
    reset(r.peer.sock)
    wait_reset(r.app)
    assert r.end.wait().reason is EndReason.TRUNCATED


def test_the_end_behind_data_that_the_application_has_no_room_for(rig: MakeRig) -> None:
    """The application is slow, the wire already over: it may get the authentic bytes, and then no clean EOF."""
    r = rig(buffers=1 << 16)
    data = noise(300_000)
    r.peer.sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        r.peer.sock.sendall(seal_all(r.peer.sealer, data, 10_000))
    r.peer.sock.close()
    got, ending = read_to_end(r.app)
    assert data.startswith(got)
    assert ending == "reset"
    assert r.end.wait().reason is EndReason.TRUNCATED


@pytest.mark.parametrize("how", ["shutdown", "close", "reset"])
def test_other_connections_go_on(rig: MakeRig, how: str) -> None:
    bystander = rig()
    for _ in range(5):
        r = rig()
        end_wire(r, how)
        assert_truncated(r)
        bystander.check_alive()
    bystander.finish()


def test_an_engine_that_goes_away_is_a_truncation_at_the_other(pair: MakePair, engines: object) -> None:
    """close() is without ceremony: neither application may take it for a clean end."""
    p = pair()
    p.apps[0].sendall(b"x")
    assert read_exactly(p.apps[1], 1) == b"x"
    engines[0].close()  # type: ignore[index]
    for app in p.apps:
        assert read_to_end(app) == (b"", "reset")
    assert p.ends[1].wait().reason in (EndReason.TRUNCATED, EndReason.PEER_RESET)


def end_wire(r: Rig, how: str) -> None:
    if how == "shutdown":
        r.peer.sock.shutdown(socket.SHUT_WR)
    elif how == "close":
        r.peer.sock.close()
    else:
        reset(r.peer.sock)
