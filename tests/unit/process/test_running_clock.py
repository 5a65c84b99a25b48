"""Deadlines leave out the time in which the process was paused."""

from __future__ import annotations

import socket

import pytest
import trio

from stcp_proxy.process.running_clock import SLACK, RunningClock


class Time:
    """The time that passes outside; it jumps when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_in_a_wait_is_left_out() -> None:
    time = Time()
    clock = RunningClock(time)
    clock.start_clock()
    began = clock.current_time()
    clock.before_io_wait(5.0)
    time.now += 100.0
    clock.after_io_wait(5.0)
    assert clock.current_time() == began


def test_a_step_that_lasts_too_long_is_left_out() -> None:
    time = Time()
    clock = RunningClock(time)
    clock.start_clock()
    clock.after_io_wait(0.0)
    began = clock.current_time()
    time.now += 30.0
    clock.before_io_wait(1.0)
    assert clock.current_time() == began


@pytest.mark.parametrize("lasted", [0.0, 0.5, 5.0, 5.0 + SLACK])
def test_a_wait_that_lasts_as_long_as_it_may_counts(lasted: float) -> None:
    time = Time()
    clock = RunningClock(time)
    clock.start_clock()
    began = clock.current_time()
    clock.before_io_wait(5.0)
    time.now += lasted
    clock.after_io_wait(5.0)
    assert clock.current_time() - began == pytest.approx(lasted)
    assert clock.deadline_to_sleep_time(began + 10.0) == pytest.approx(10.0 - lasted)


def test_bytes_that_came_in_the_pause_are_read_before_a_deadline_counts() -> None:
    """The pause begins while a task waits for its socket, and lasts ten times as long as the deadline."""
    time = Time()
    clock = RunningClock(time)

    class Pause(trio.abc.Instrument):
        def before_io_wait(self, _timeout: float) -> None:
            if not self.done:
                self.done = True
                theirs.sendall(b"x")
                time.now += 100.0

        done = False

    async def read() -> bytes:
        with trio.fail_after(10.0):
            for _ in range(5):  # a deadline that has passed would end one of these
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.wait_readable(ours)
            await trio.lowlevel.checkpoint()
            return ours.recv(1)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert trio.run(read, clock=clock, instruments=[clock, Pause()]) == b"x"
