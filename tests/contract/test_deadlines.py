"""Idle and half-close deadlines, and the linger behind RESET. The only tests that must let real time pass."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from stcp_proxy.errors import Code
from stcp_proxy.protocol.wire import FrameType
from stcp_proxy.relay.engine import EndReason, RelayLimits

from .harness import MakeRig, Rig
from .legs import noise, quiet, read_exactly, read_to_end, reset, send_until_stalled

SHORT = 0.4
LATE = 3.0
"""How much later than its deadline a connection may end."""


def pause(seconds: float) -> None:
    """Time between two signs of life: there is nothing to wait for but the clock."""
    threading.Event().wait(seconds)


def assert_expired(r: Rig, since: float, reason: EndReason, *, after_eof: bool = False) -> None:
    assert r.peer.expect_reset(Code.IDLE_TIMEOUT)
    assert SHORT * 0.9 <= time.monotonic() - since <= SHORT + LATE
    if not after_eof:
        assert read_to_end(r.app) == (b"", "reset")
    r.peer.sock.close()
    end = r.end.wait()
    assert (end.reason, end.code) == (reason, Code.IDLE_TIMEOUT)


def test_a_silent_connection_ends_at_its_idle_deadline(rig: MakeRig) -> None:
    since = time.monotonic()
    r = rig(limits=RelayLimits(idle=SHORT))
    assert_expired(r, since, EndReason.IDLE_TIMEOUT)


def test_the_idle_deadline_counts_from_the_last_byte(rig: MakeRig) -> None:
    r = rig(limits=RelayLimits(idle=SHORT))
    pause(SHORT / 2)
    r.check_alive()
    since = time.monotonic()
    assert_expired(r, since, EndReason.IDLE_TIMEOUT)


@pytest.mark.parametrize("way", ["to wire", "to plain"])
def test_bytes_in_one_direction_keep_a_connection_alive(rig: MakeRig, way: str) -> None:
    r = rig(limits=RelayLimits(idle=SHORT))
    for _ in range(8):
        pause(SHORT / 4)
        if way == "to wire":
            r.app.sendall(b"x")
            assert r.peer.read_data(1) == b"x"
        else:
            r.peer.send_data(b"x")
            assert read_exactly(r.app, 1) == b"x"
    assert not r.end.called
    r.finish()


def test_no_idle_deadline_unless_one_is_set(rig: MakeRig) -> None:
    r = rig(limits=RelayLimits(idle=None, half_close=SHORT))
    assert quiet(r.app, 2 * SHORT), "the half-close deadline is for half-closed connections"
    r.check_alive()


@pytest.mark.parametrize("first", ["application", "peer"])
def test_a_half_closed_connection_ends_when_it_has_been_idle_for_its_deadline(rig: MakeRig, first: str) -> None:
    r = rig(limits=RelayLimits(half_close=SHORT))
    r.check_alive()
    since = time.monotonic()
    half_close(r, first)
    assert_expired(r, since, EndReason.HALF_CLOSE_TIMEOUT, after_eof=first == "peer")


@pytest.mark.parametrize("first", ["application", "peer"])
def test_a_half_closed_connection_that_moves_data_is_not_ended(rig: MakeRig, first: str) -> None:
    """Not at a fixed time from FIN: three deadlines long, a byte comes whenever half of one has passed."""
    r = rig(limits=RelayLimits(half_close=SHORT))
    half_close(r, first)
    for _ in range(6):
        pause(SHORT / 2)
        if first == "application":
            r.peer.send_data(b"x")
            assert read_exactly(r.app, 1) == b"x"
        else:
            r.app.sendall(b"x")
            assert r.peer.read_data(1) == b"x"
    assert not r.end.called
    if first == "application":
        r.peer.send_fin()
        assert read_to_end(r.app) == (b"", "eof")
    else:
        r.app.shutdown(socket.SHUT_WR)
        r.peer.expect(FrameType.FIN)
    assert r.end.wait().reason is EndReason.FINISHED


def half_close(r: Rig, first: str) -> None:
    if first == "application":
        r.app.shutdown(socket.SHUT_WR)
        r.peer.expect(FrameType.FIN)
    else:
        r.peer.send_fin()
        assert read_to_end(r.app) == (b"", "eof")


def test_a_half_closed_connection_without_a_deadline_stays(rig: MakeRig) -> None:
    r = rig(limits=RelayLimits(half_close=None))
    r.app.shutdown(socket.SHUT_WR)
    r.peer.expect(FrameType.FIN)
    assert quiet(r.peer.sock, 2 * SHORT)
    r.peer.send_data(b"late")
    assert read_exactly(r.app, 4) == b"late"


def test_a_stalled_connection_is_idle(rig: MakeRig) -> None:
    """Bytes that wait for a reader do not move: the deadline holds against a reader that never comes back."""
    r = rig(buffers=1 << 16, limits=RelayLimits(idle=SHORT))
    send_until_stalled(r.app, lambda: noise(20_000), limit=1 << 24)
    assert r.end.wait(SHORT + 2 + LATE).reason is EndReason.IDLE_TIMEOUT


@pytest.mark.parametrize("why", ["abort", "application"])
def test_the_wire_lingers_behind_reset_and_no_longer(rig: MakeRig, why: str) -> None:
    """The peer keeps its side open: it can read RESET, and after the linger the engine lets go of both legs."""
    r = rig(limits=RelayLimits(linger=SHORT))
    r.check_alive()
    since = time.monotonic()
    if why == "abort":
        r.relay.abort(Code.SHUTTING_DOWN, "bye")
        assert read_to_end(r.app) == (b"", "reset")
        assert time.monotonic() - since < LATE, "the application hears at once"
    else:
        reset(r.app)
    end = r.end.wait(SHORT + LATE)
    assert r.end.at is not None
    assert SHORT * 0.9 <= r.end.at - since <= SHORT + LATE
    assert r.peer.expect_reset(Code.SHUTTING_DOWN if why == "abort" else Code.PLAIN_RESET) is not None
    assert end.reason in (EndReason.ABORTED, EndReason.PLAIN_RESET)


def test_the_linger_ends_when_the_peer_has_closed(rig: MakeRig) -> None:
    r = rig(limits=RelayLimits(linger=60.0))
    r.relay.abort(Code.SHUTTING_DOWN, "bye")
    r.peer.expect_reset(Code.SHUTTING_DOWN)
    r.peer.sock.close()
    r.end.wait()


def test_deadlines_of_one_connection_do_not_touch_another(rig: MakeRig) -> None:
    short, long = rig(limits=RelayLimits(idle=SHORT)), rig()
    since = time.monotonic()
    assert_expired(short, since - 0.05, EndReason.IDLE_TIMEOUT)
    long.check_alive()
