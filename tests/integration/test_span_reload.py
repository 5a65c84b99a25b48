"""Spans in several processes: reload, worker processes, a new process that takes over."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from harness.collector import Collector, collecting
from harness.process import wait_for
from harness.proxies import Proxy
from harness.sockets import Target
from harness.span_pair import Pair, exporters_of


@pytest.mark.parametrize("workers", [1, 2])
def test_spans_begin_move_and_end_with_a_reload(tmp_path: Path, collector: Collector, echo: Target, workers: int) -> None:
    pair = Pair(tmp_path, echo.to, None, workers=workers)
    pair.talk()
    without = pair.listen.config
    assert exporters_of(pair.listen) == []

    first = pair.listen.reload(without | {"otlp": {"endpoint": collector.url}})
    assert "otlp" in first["settings"]
    pair.talk()
    collector.wait(1)
    with collecting() as other:
        pair.listen.reload(without | {"otlp": {"endpoint": other.url, "service_name": "moved"}})
        for _ in range(4):
            pair.talk()
        other.wait(4)
        assert {of.resource.attributes[0].key for each in other.requests for of in each.resource_spans} != set()

    pair.listen.reload(without)
    wait_for(lambda: exporters_of(pair.listen) == [], words="the end of the exporter")
    pair.talk()
    pair.stop()
    assert len(collector.spans) == 1
    assert len(other.spans) == 4


def test_a_reload_loses_no_span(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    whole = pair.listen.config
    for number in range(5):
        pair.talk()
        pair.listen.reload(whole | {"otlp": {"endpoint": collector.url, "service_name": f"number {number}"}})
    pair.talk()
    pair.stop()
    assert [span.name for span in collector.spans].count("listen in") == 6


def test_a_reload_that_is_refused_changes_nothing(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    whole = pair.listen.config
    line = pair.listen.reload_refused(whole | {"otlp": {"endpoint": "http://collector.example:4318"}})
    assert "unencrypted" in line["why"]
    pair.talk()
    collector.wait(2)
    pair.stop()


def test_worker_processes_share_one_exporter(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, workers=2, admin="127.0.0.1:0")
    assert len(exporters_of(pair.listen)) == 1
    for _ in range(24):  # each worker process gets at least one
        pair.talk()
    collector.wait(48)
    pair.results(pair.listen, exported=24, failed=0, dropped=0)
    pair.stop()
    assert len(collector.requests[0].resource_spans) == 1


def test_the_last_spans_of_worker_processes_arrive(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, workers=2)
    for _ in range(12):
        pair.talk()
    pair.stop()
    assert len(collector.spans) == 24


def test_an_exporter_does_not_outlive_a_proxy_that_is_killed(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    pair.talk()
    pid = exporters_of(pair.listen)[0]
    pair.listen.wait_log("connection closed")
    pair.listen.signal(signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), words="the end of the exporter")
    pair.connect.stop()
    assert sorted(span.name for span in collector.spans) == ["connect out", "listen in"]


def test_old_and_new_process_both_export(tmp_path: Path, collector: Collector, echo: Target) -> None:
    takeover = {"takeover": f"unix:{tmp_path}/takeover.sock", "takeover_drain": "1m"}
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url}, takeover)
    held = pair.held()
    new = Proxy(["run", str(pair.listen.file), "--replace"], log=tmp_path / "new.log").ready()
    pair.talk()
    collector.wait(2)
    held.close()
    assert pair.listen.wait() == 0
    new.stop()
    pair.connect.stop()
    assert [span.name for span in collector.spans].count("listen in") == 2
    assert os.path.exists(pair.listen.file)
