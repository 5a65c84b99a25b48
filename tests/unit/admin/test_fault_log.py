"""When faults began and ended, and the verdict that is made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stcp_proxy.admin.fault_log import LISTED, FaultLog
from stcp_proxy.admin.faults import OVER, find_faults
from stcp_proxy.admin.report import Report
from stcp_proxy.admin.status_schema import Reload, Reloads
from stcp_proxy.admin.verdict_schema import Fault, Kind

from .make_report import NOW, down, refusal, report, tunnel

STATE = Fault(key="k", kind="not_listening", level="bad", what=["w"], tunnels=["redis"])


def after(*steps: tuple[float, list[Fault]]) -> FaultLog:
    log = FaultLog()
    for at, found in steps:
        log.update(found, NOW + at)
    return log


def test_a_state_began_when_it_was_seen_first() -> None:
    (fault,) = after((0, []), (10, [STATE]), (20, [STATE])).verdict(1).faults
    assert (fault.since, fault.until, fault.times) == (NOW + 10, None, 1)


def test_a_fault_that_knows_its_beginning_is_believed() -> None:
    (fault,) = after((0, [replace(STATE, since=5.0)])).verdict(1).faults
    assert fault.since == 5.0


def test_a_fault_that_is_over_says_so_and_goes() -> None:
    log = after((0, [STATE]), (10, []))
    verdict = log.verdict(1)
    assert (verdict.level, verdict.headline) == ("ok", "All is well again")
    assert [(fault.since, fault.until) for fault in verdict.faults] == [(NOW, NOW + 10)]
    log.update([], NOW + 10 + OVER)
    assert log.verdict(1).faults != []
    log.update([], NOW + 11 + OVER)
    assert log.verdict(1).faults == []
    assert log.verdict(1).headline == "All is well"


def test_a_fault_that_returns_is_counted() -> None:
    (fault,) = after((0, [STATE]), (10, []), (20, [STATE])).verdict(1).faults
    assert (fault.since, fault.until, fault.times) == (NOW + 20, None, 2)


def test_a_refusal_that_nobody_repeats_just_goes() -> None:
    found = find_faults(report(refusals=[refusal()]))
    assert after((0, found), (400, [])).verdict(1).faults == []


def test_a_refusal_that_is_over_is_listed_as_such() -> None:
    found = find_faults(report(refusals=[refusal()]))
    over = [replace(found[0], until=NOW + 5)]
    (fault,) = after((0, found), (40, over)).verdict(1).faults
    assert fault.until == NOW + 5


def test_an_older_report_changes_nothing() -> None:
    assert after((10, [STATE]), (5, [])).verdict(1).faults[0].until is None


@pytest.mark.parametrize("kind", ["starting", "draining"])
def test_the_end_of_a_start_is_no_news(kind: Kind) -> None:
    assert after((0, [replace(STATE, kind=kind, tunnels=[])]), (1, [])).verdict(1).faults == []


def test_the_worst_come_first_and_the_list_is_short() -> None:
    found = [replace(STATE, key=str(number), level="warn", kind="refused") for number in range(20)]
    verdict = after((0, [*found, STATE])).verdict(1)
    assert verdict.faults[0].level == verdict.level == "bad"
    assert (len(verdict.faults), verdict.more) == (LISTED, 21 - LISTED)


def test_memory_is_bounded() -> None:
    log = FaultLog()
    for number in range(500):
        log.update([replace(STATE, key=str(number))], NOW + number / 10)
    log.update([], NOW + 60)
    verdict = log.verdict(1)
    assert len(verdict.faults) + verdict.more <= 50
    assert len(log._times) <= 50


@pytest.mark.parametrize(
    ("found", "headline"),
    [
        (report(), "All is well"),
        (report(tunnel(targets=[down()]), tunnel("b", targets=[down("b:1")]), tunnel("c")), "2 of 3 tunnels have no target"),
        (report(tunnel(targets=[down()]), tunnel("b")), "1 of 2 tunnels has no target"),
        (report(tunnel(targets=[down()])), "The tunnel has no target"),
        (
            report(tunnel(targets=[down()]), tunnel("b", listening=[]), tunnel("c", open=100)),
            "1 of 3 tunnels has no target, 1 of 3 tunnels does not listen, and more",
        ),
        (report(refusals=[refusal()]), "The tunnel refuses connections"),
        (report(refusals=[refusal(level="note")]), "All is well"),
        (report(reloads=Reloads(last=Reload(time=NOW, ok=False, what="w"))), "The last reload was refused"),
        (report(tunnel(listening=[]), state="draining"), "The proxy is stopping"),
    ],
    ids=["well", "two of three", "one of two", "the only one", "three kinds", "refused", "stranger", "reload", "draining"],
)
def test_the_headline_says_what_is_wrong(found: Report, headline: str) -> None:
    log = FaultLog()
    log.update(find_faults(found), found.time)
    assert log.verdict(len(found.tunnels)).headline == headline
