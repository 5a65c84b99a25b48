"""Repeated events are counted: the first at once, a bounded number a second, none lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from stcp_proxy.config import LogClass, LogPlan
from stcp_proxy.logs import log, rate_limit
from stcp_proxy.logs.rate_limit import AT_ONCE, Repeats


class Log:
    """What is written, and when; time stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[dict[str, Any]] = []
        self.repeats = Repeats(self.lines.append, clock=lambda: self.now)

    def event(self, number: int = 0, *, event: str = "connection refused", level: str = "warning", **fields: Any) -> None:
        line = {"event": event, "level": level, "tunnel": "web", "reason": "not_stcp", "number": number, **fields}
        if self.repeats.may_say(line):
            self.lines.append(line)

    @property
    def total(self) -> int:
        return sum(line.get("times", 1) for line in self.lines)


def test_the_first_are_said_at_once_and_the_rest_is_counted() -> None:
    log = Log()
    for number in range(1000):
        log.event(number)
    assert [line["number"] for line in log.lines] == list(range(AT_ONCE))
    assert log.repeats.flush() == 1.0
    log.now = 1.0
    assert log.repeats.flush() is None
    assert (log.lines[-1]["number"], log.lines[-1]["times"]) == (999, 1000 - AT_ONCE)
    assert log.total == 1000


@pytest.mark.parametrize(
    ("event", "level"), [("connection refused", "warning"), ("connection refused", "info"), ("health check received", "debug")]
)
def test_a_flood_costs_a_bounded_number_of_lines(event: str, level: str) -> None:
    log = Log()
    for number in range(10_000):
        log.now = number / 1000
        log.event(number, event=event, level=level)
        if number % 100 == 0:
            log.repeats.flush()
    log.repeats.flush(everything=True)
    assert len(log.lines) <= 11 * AT_ONCE
    assert log.total == 10_000


def test_without_anybody_who_flushes_the_next_event_tells_what_was_kept_back() -> None:
    log = Log()
    for number in range(AT_ONCE + 2):
        log.event(number)
    log.now = 5.0
    log.event(100)
    assert [line["number"] for line in log.lines[AT_ONCE:]] == [AT_ONCE + 1, 100]
    assert log.lines[AT_ONCE]["times"] == 2


def test_one_that_was_kept_back_looks_like_any_other() -> None:
    log = Log()
    for number in range(AT_ONCE + 1):
        log.event(number)
    log.repeats.flush(everything=True)
    assert "times" not in log.lines[-1]


def test_kinds_do_not_hide_each_other() -> None:
    log = Log()
    for _ in range(100):
        log.event()
    before = len(log.lines)
    log.event(reason="unknown_peer")
    log.event(tunnel="other")
    log.event(event="something else")
    assert len(log.lines) == before + 3


def test_what_stands_for_one_connection_is_never_kept_back() -> None:
    log = Log()
    for _ in range(100):
        log.event(event="connection closed", level="info", reason="finished")
        log.event(event="ready", level="info")
    assert len(log.lines) == 200


def test_a_state_is_said_once_a_second() -> None:
    log = Log()
    for number in range(100):
        log.now = number / 20
        log.event(event="limit reached: new connections wait", limit="max_connections", reason=None)
    assert len(log.lines) <= 6


def test_made_up_reasons_do_not_fill_memory() -> None:
    log = Log()
    for number in range(5000):
        log.now = number / 10
        log.event(reason=f"reason {number}")
    assert len(log.repeats._seconds) < 1500


async def test_the_last_of_a_burst_is_said_without_another_event(autojump_clock: MockClock) -> None:
    lines: list[dict[str, Any]] = []
    counted = Repeats(lines.append, clock=trio.current_time)
    async with rate_limit.telling(counted):
        for burst in range(2):
            for _ in range(50):
                counted.may_say({"event": "connection refused", "level": "warning", "burst": burst})
            await trio.sleep(10)
            assert (lines[burst]["burst"], lines[burst]["times"]) == (burst, 50 - AT_ONCE)
        for _ in range(AT_ONCE + 3):
            counted.may_say({"event": "connection refused", "level": "warning"})
    assert lines[-1]["times"] == 3


async def test_in_rest_nothing_wakes_up(autojump_clock: MockClock) -> None:
    async with rate_limit.telling(Repeats(list[dict[str, Any]]().append, clock=trio.current_time)):
        await trio.sleep(1)
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == float("inf")


def test_through_the_real_chain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure(LogPlan(format="json"), worker=3)
    try:
        for number in range(AT_ONCE + 5):
            structlog.get_logger().warning("connection refused", tunnel="chain", reason="version", number=number)
        log.REPEATS.flush(everything=True)
    finally:
        structlog.reset_defaults()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == AT_ONCE + 1
    for word in ('"times": 5', f'"number": {AT_ONCE + 4}', '"worker": 3', '"level": "warning"', '"timestamp"'):
        assert word in lines[-1]
    assert "_kept_back" not in lines[-1]


# -- classes ---------------------------------------------------------------------------------------------------------------


def test_a_quiet_class_is_silent_and_the_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(LogPlan(format="json", quiet=frozenset({LogClass.HANDSHAKE_ERRORS})))
    try:
        for log_class in (*LogClass, None):
            structlog.get_logger().warning("connection refused", reason=str(log_class), log_class=log_class)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["reason"] for line in lines] == ["connections", "connection-errors", "None"]
    assert all("log_class" not in line for line in lines)


def test_events_that_are_only_counted_are_in_times() -> None:
    """A flood costs less than a record for each event, and the log still has its number."""
    now, said = [0.0], list[dict[str, Any]]()
    repeats = Repeats(said.append, clock=lambda: now[0])
    event = {"event": "connection refused", "level": "info", "tunnel": "t", "reason": "r"}
    repeats.count(event)  # nothing of this kind has been logged: it is silenced
    written = sum(repeats.may_say(event) for _ in range(AT_ONCE + 5))
    for _ in range(100):
        repeats.count(event)
    now[0] = 1.5
    repeats.flush()
    for _ in range(7):
        repeats.count(event)
    now[0] = 3.0
    repeats.flush()
    assert (written, [line.get("times") for line in said]) == (AT_ONCE, [105, 7])
