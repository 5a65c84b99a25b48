"""A leg whose peer pauses, is lost or is gone: when TCP_USER_TIMEOUT decides, and when probes do."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from stcp_proxy.relay.zero_window import LegWatch, Look, SendState

TIMEOUT = 30_000


class Leg:
    """A TCP socket that reports what the test says."""

    def __init__(self) -> None:
        self.timeout = TIMEOUT
        self.probes = self.unacknowledged = self.acknowledged = self.waiting = 0
        self.window, self.segment = 1 << 16, 1448
        self.length = 232

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        if option == socket.TCP_USER_TIMEOUT:
            return self.timeout
        raw = bytearray(max(size, 232))
        raw[3] = self.probes
        struct.pack_into("=I4xI", raw, 16, self.segment, self.unacknowledged)
        struct.pack_into("=Q16xI", raw, 120, self.acknowledged, self.waiting)
        struct.pack_into("=I", raw, 228, self.window)
        return bytes(raw[: self.length])

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert option == socket.TCP_USER_TIMEOUT
        self.timeout = value


@pytest.fixture
def leg() -> Leg:
    return Leg()


@pytest.fixture
def watch(leg: Leg) -> LegWatch:
    return LegWatch(leg)  # type: ignore[arg-type]


def looks(watch: LegWatch, *times: float) -> list[Look]:
    return [watch.look(now) for now in times]


def test_a_leg_with_nothing_to_send_is_at_rest(leg: Leg, watch: LegWatch) -> None:
    assert looks(watch, 0, 100) == [Look.AT_REST] * 2
    assert leg.timeout == TIMEOUT


def test_a_reader_that_pauses_and_answers_probes_lives_for_ever(leg: Leg, watch: LegWatch) -> None:
    leg.waiting, leg.window = 1000, 0
    assert looks(watch, *range(10_000)) == [Look.WAITING] * 10_000
    assert leg.timeout == 0
    leg.window = 1 << 16
    assert watch.look(10_000) is Look.WAITING
    assert leg.timeout == TIMEOUT


@pytest.mark.parametrize("window", [0, 1447])
def test_a_reader_that_is_gone_is_dead_after_the_user_timeout(leg: Leg, watch: LegWatch, window: int) -> None:
    leg.waiting, leg.window = 1000, window
    assert watch.look(0) is Look.WAITING
    leg.probes = 5
    assert looks(watch, 1, 3, 30.9) == [Look.WAITING] * 3
    assert watch.look(31) is Look.DEAD


def test_four_probes_are_enough_and_three_are_not(leg: Leg, watch: LegWatch) -> None:
    leg.waiting, leg.window, leg.probes = 1000, 0, 3
    assert looks(watch, 0, 100) == [Look.WAITING] * 2
    leg.probes = 4
    assert watch.look(101) is Look.DEAD


def test_an_answer_starts_the_silence_anew(leg: Leg, watch: LegWatch) -> None:
    leg.waiting, leg.window, leg.probes = 1000, 0, 4
    assert looks(watch, 0, 29) == [Look.WAITING] * 2
    leg.probes = 0
    assert watch.look(30) is Look.WAITING
    leg.probes = 4
    assert looks(watch, 31, 60) == [Look.WAITING] * 2
    assert watch.look(61) is Look.DEAD


def test_a_lost_path_behind_an_open_window_is_left_to_the_kernel(leg: Leg, watch: LegWatch) -> None:
    """The link is down: this host cannot send, and its probes have no answer."""
    leg.waiting, leg.probes = 1000, 15
    assert looks(watch, 0, 5, 29, 100) == [Look.WAITING] * 4
    assert leg.timeout == TIMEOUT


def test_segments_under_way_are_left_to_the_kernel(leg: Leg, watch: LegWatch) -> None:
    leg.waiting, leg.window, leg.unacknowledged, leg.probes = 1000, 0, 1, 15
    assert looks(watch, 0, 100) == [Look.WAITING] * 2
    assert leg.timeout == TIMEOUT


def test_a_reader_that_takes_bytes_slowly_is_alive(leg: Leg, watch: LegWatch) -> None:
    leg.waiting, leg.window, leg.probes = 1000, 0, 4
    for now in range(0, 100, 10):
        leg.acknowledged += 1
        assert watch.look(now) is Look.WAITING


def test_without_a_user_timeout_a_minute_counts(leg: Leg, watch: LegWatch) -> None:
    leg.timeout, leg.waiting, leg.window, leg.probes = 0, 1000, 0, 4
    assert looks(watch, 0, 59) == [Look.WAITING] * 2
    assert watch.look(60) is Look.DEAD


def test_a_kernel_that_does_not_tell_the_window(leg: Leg, watch: LegWatch) -> None:
    leg.length, leg.waiting = 192, 1000
    assert SendState.of(leg).window_closed  # type: ignore[arg-type]


def test_a_unix_socket_and_a_closed_one_have_nothing_under_way() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert SendState.of(near) == SendState(0, 0, 0, 0, 0, 0)
    assert not SendState.of(near).window_closed
