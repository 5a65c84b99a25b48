"""The last hour: rates from reports, in bounded memory."""

from __future__ import annotations

import sys
from typing import Any

import trio

from stcp_proxy.admin.cooperate import Steps
from stcp_proxy.admin.faults import find_faults, find_faults_in_steps
from stcp_proxy.admin.history import BYTES_PER_TUNNEL, POINTS, STEP, History, Past, _Ring
from stcp_proxy.admin.report import Report, TunnelReport
from stcp_proxy.counters import Counts

from .make_report import NOW, report, tunnel


def counted(name: str = "redis", *, wire: int = 0, plain: int = 0, refused: int = 0, open_now: int = 0) -> TunnelReport:
    counts = Counts(bytes_to_wire=wire, bytes_to_plain=plain, refused={("p", "denied"): refused})
    return tunnel(name, counts=counts, open=open_now, open_to_wire=5 * (wire > 0))


def add(history: History, new: Report) -> None:
    trio.run(history.add, new, Steps())


def past(*reports: Report, started: float = NOW, names: tuple[str, ...] = ("redis",), points: int = POINTS) -> Past:
    history = History(started)
    for each in reports:
        add(history, each)
    return history.past(list(names), points)


def test_rates_and_counts() -> None:
    found = past(
        report(counted(wire=995, plain=500, refused=3), at=NOW + 10),
        report(counted(wire=2995, plain=500, refused=4, open_now=2), at=NOW + 20),
    )
    assert found.times == [NOW + 10, NOW + 20]
    total, redis = found.series
    assert (total.tunnel, redis.tunnel) == ("", "redis")
    assert (redis.to_wire, redis.to_plain, redis.open, redis.refused) == ([100, 200], [50, 0], [0, 2], [3, 1])
    assert (total.to_wire, total.refused) == (redis.to_wire, redis.refused)


def test_the_sum_is_of_all_tunnels() -> None:
    total = past(report(counted(wire=95), counted("b", plain=200, open_now=1), at=NOW + 10), names=()).series[0]
    assert (total.to_wire, total.to_plain, total.open) == ([10], [20], [1])


def test_nothing_is_drawn_over_what_is_unknown() -> None:
    """A counter that went back (a worker process is silent), and a long time without a report."""
    found = past(
        report(counted(wire=1000), at=NOW + 10),
        report(counted(wire=500), at=NOW + 20),
        report(counted(wire=600), at=NOW + 30),
        report(counted(wire=700), at=NOW + 90),
    )
    assert [rate is None for rate in found.series[1].to_wire] == [False, True, False, True]


def test_an_hour_is_kept_and_no_more() -> None:
    reports = [report(counted(wire=1000 * number), at=NOW + STEP * number) for number in range(1, POINTS + 8)]
    found = past(*reports)
    assert (len(found.times), found.times[0], found.times[-1]) == (POINTS, NOW + 80, NOW + STEP * (POINTS + 7))
    assert found.times == sorted(found.times)
    assert found.series[1].to_wire == [100] * POINTS
    assert past(*reports, points=2).times == found.times[-2:]
    assert past(*reports, points=0).times == []


def test_a_clock_that_was_set_back_begins_anew() -> None:
    found = past(report(at=NOW + 10), report(at=NOW + 20), report(at=NOW - 500))
    assert found.times == [NOW - 500]
    assert found.series[0].to_wire == [None]


def test_a_tunnel_without_connections_costs_nothing_and_a_removed_one_is_forgotten() -> None:
    history = History(NOW)
    add(history, report(counted("a", wire=1), counted("idle"), at=NOW + 10))
    assert set(history._rings) == {"a"}
    add(history, report(counted("idle"), at=NOW + 20))
    assert set(history._rings) == set()


def test_memory_of_a_tunnel() -> None:
    ring = _Ring()
    arrays = (ring.to_wire, ring.to_plain, ring.open, ring.refused)
    assert sum(len(each) * each.itemsize for each in arrays) == BYTES_PER_TUNNEL == 5760
    assert sum(map(sys.getsizeof, arrays)) < BYTES_PER_TUNNEL + 512


class Paused:
    """Looks at the history in each pause."""

    def __init__(self, look: Any) -> None:
        self.seen: list[Any] = []
        self._look = look

    async def pause(self) -> None:
        self.seen.append(self._look())


async def test_a_point_appears_when_all_tunnels_have_it() -> None:
    history = History(NOW)
    steps: Any = Paused(lambda: history.past(["a", "b"]).times)
    await history.add(report(counted("a", wire=1), counted("b", wire=1), at=NOW + 10), steps)
    assert steps.seen == [[], []]  # one pause for each tunnel
    assert history.past(["a", "b"]).times == [NOW + 10]


async def test_faults_are_found_with_a_pause_for_each_tunnel() -> None:
    steps: Any = Paused(lambda: None)
    many = report(*(tunnel(f"t{number}", listening=[]) for number in range(3)), tunnel("good"))
    found = await find_faults_in_steps(many, steps)
    assert found == find_faults(many)
    assert len(steps.seen) >= 4
