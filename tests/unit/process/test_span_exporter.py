"""The exporter's process: started, replaced, started again, ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from harness.collector import Collector, collecting
from harness.process import wait_for

from stcp_proxy.config import LogPlan, OtlpPlan, Plan
from stcp_proxy.process import span_exporter
from stcp_proxy.process.span_exporter import SpanExporter
from stcp_proxy.spans import sink

RECORD: dict[str, Any] = {"mode": "connect", "tunnel": "a", "channel": "00" * 8, "seconds": 0.1, "ended": 1 << 60}
NOWHERE = Plan(())


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    sink.use(None)


def plan(collector: Collector, **changes: Any) -> Plan:
    return Plan((), otlp=OtlpPlan(f"{collector.url}/v1/traces", **changes), log=LogPlan(level="error"))


def offer() -> None:
    to = sink.current()
    assert to is not None
    to.offer(RECORD)


def pid_of(exporter: SpanExporter) -> int:
    return wait_for(lambda: exporter._child.pid if exporter._child is not None else None, words="a process")


def test_from_start_to_end(collector: Collector) -> None:
    exporter = SpanExporter(plan(collector, service_name="mine"))
    exporter.start()
    offer()
    exporter.close()
    (request,) = collector.requests
    (of_one,) = request.resource_spans
    found = {each.key: each.value.string_value for each in of_one.resource.attributes}
    assert found["service.name"] == "mine"
    assert {"service.version", "service.instance.id", "host.name"} <= found.keys()
    assert sink.current() is None


def test_a_change_brings_the_next_one(collector: Collector) -> None:
    exporter = SpanExporter(NOWHERE)
    exporter.start()
    assert sink.current() is None
    assert exporter.prepare(NOWHERE) is None
    assert exporter.prepare(dataclasses.replace(NOWHERE, drain=7.0)) is None
    for name in ("first", "second"):
        change = exporter.prepare(plan(collector, service_name=name))
        assert change is not None
        change.commit()
        offer()
    collector.wait(2)
    last = pid_of(exporter)
    change = exporter.prepare(NOWHERE)
    assert change is not None
    change.commit()
    assert sink.current() is None
    wait_for(lambda: not os.path.exists(f"/proc/{last}"), words="the end")
    exporter.close()
    assert len(collector.spans) == 2


def test_an_end_right_after_a_change_sends_what_was_left_to_the_next_one(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The next process has to start in this time, which is long on a full machine.
    monkeypatch.setattr(span_exporter, "LAST_SPANS", 60)
    exporter = SpanExporter(plan(collector))
    exporter.start()
    first = pid_of(exporter)
    os.kill(first, signal.SIGSTOP)
    offer()
    exporter.change(plan(collector, service_name="next"))
    closing = threading.Thread(target=exporter.close)
    closing.start()
    wait_for(lambda: not exporter._is_wanted, words="the end")
    os.kill(first, signal.SIGCONT)
    closing.join()
    assert len(collector.spans) == 1


def test_one_that_is_killed_is_followed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_exporter, "_FIRST_PAUSE", 0.1)
    exporter = SpanExporter(plan(collector))
    exporter.start()
    first = pid_of(exporter)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pid_of(exporter) != first, words="another process")
    offer()
    collector.wait(1)
    exporter.close()


def test_one_that_cannot_be_started(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_exporter, "_FIRST_PAUSE", 0.1)
    tried: list[int] = []

    def refuse(*_arguments: Any, **_more: Any) -> None:
        tried.append(1)
        raise OSError(12, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(span_exporter.subprocess, "Popen", refuse)
        exporter = SpanExporter(plan(collector))
        exporter.start()
        wait_for(lambda: len(tried) > 1, words="two attempts")
    offer()
    collector.wait(1)
    exporter.close()


def test_one_that_hangs_is_killed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_exporter, "LAST_SPANS", 0.2)
    exporter = SpanExporter(plan(collector))
    exporter.start()
    pid = pid_of(exporter)
    os.kill(pid, signal.SIGSTOP)
    exporter.close()
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), words="the end")


def test_the_parent_of_worker_processes_makes_no_records(collector: Collector) -> None:
    exporter = SpanExporter(dataclasses.replace(plan(collector), workers=2))
    to = sink.current()
    assert to is not None
    pid = os.fork()
    if pid == 0:
        exporter.forked(0)
        to.offer(RECORD)
        os._exit(0)
    exporter.forked(None)
    assert sink.current() is None
    os.waitpid(pid, 0)
    collector.wait(1)
    exporter.change(plan(collector, service_name="other"))
    exporter.close()


def test_signals_for_the_group_do_not_end_it(collector: Collector) -> None:
    exporter = SpanExporter(plan(collector))
    exporter.start()
    pid = pid_of(exporter)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    offer()
    collector.wait(1)
    assert pid_of(exporter) == pid
    exporter.close()
