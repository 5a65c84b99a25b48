"""The loop of the exporter: batches, attempts, the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.collector import Collector, collecting
from harness.process import wait_for
from harness.sockets import free_port

from stcp_proxy.config import LogPlan, OtlpPlan, Token
from stcp_proxy.spans import counts, exporter, orders
from stcp_proxy.spans.channel import Channel
from stcp_proxy.spans.counts import Counts
from stcp_proxy.spans.exporter import Exporter
from stcp_proxy.spans.orders import FOLLOWED, Orders

RECORD: dict[str, Any] = {"mode": "connect", "tunnel": "a", "channel": "00" * 8, "seconds": 0.1, "ended": 1 << 60}


class Site:
    """An exporter with its channel. `at` runs steps in a thread beside it, because it needs the main thread."""

    def __init__(self) -> None:
        self.channel = Channel()
        os.set_blocking(self.channel.reader, False)
        self.control, self.end = os.pipe2(os.O_NONBLOCK)

    def run(self, url: str, *steps: Any, timeout: float = 20.0) -> Counts:
        """Run an exporter while the steps are done, and until its end. Returns its counts."""

        def act() -> None:
            for step in steps:
                step()

        thread = threading.Thread(target=act)
        found = Exporter(
            self.channel.reader, self.channel.counts, Orders(f"{url}/v1/traces", {}, None, timeout, {}), self.control
        )
        thread.start()
        found.run()
        thread.join()
        return self.channel.results

    def records(self, number: int) -> None:
        for _ in range(number):
            self.channel.offer(RECORD)

    def stop(self) -> None:
        os.close(self.end)
        self.end = -1

    def close(self) -> None:
        self.channel.close()
        os.close(self.channel.counts)
        for fd in (self.control, self.end):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "DELAY", 0.2)
    monkeypatch.setattr(exporter, "FIRST_WAIT", 0.1)


def test_a_batch_is_sent_when_its_first_record_is_old_enough(site: Site, collector: Collector) -> None:
    site.records(3)
    assert site.run(collector.url, lambda: collector.wait(3), site.stop) == Counts(3, 3, 0)
    assert len(collector.requests) == 1


def test_a_full_batch_is_sent_at_once(site: Site, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "DELAY", 1000.0)
    monkeypatch.setattr(exporter, "BATCH", 10)
    site.records(25)
    assert site.run(collector.url, lambda: collector.wait(20), site.stop) == Counts(25, 25, 0)
    assert [len(each.resource_spans[0].scope_spans[0].spans) for each in collector.requests] == [10, 10, 5]


@pytest.mark.parametrize("end", ["control", "channel"])
def test_the_end_sends_what_is_left(site: Site, collector: Collector, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(exporter, "DELAY", 1000.0)
    site.records(700)
    assert site.run(collector.url, site.stop if end == "control" else site.channel.close_writer) == Counts(700, 700, 0)


def test_what_another_exporter_takes_is_left(site: Site, collector: Collector) -> None:
    os.write(site.end, FOLLOWED)
    site.stop()
    site.records(5)
    assert site.run(collector.url) == Counts()
    site.control = os.open("/dev/null", os.O_RDONLY)
    assert site.run(collector.url) == Counts(5, 5, 0)


def test_a_collector_that_comes_back(site: Site) -> None:
    port = free_port()
    site.records(2)
    started: list[Collector] = []

    def come() -> None:
        time.sleep(0.5)
        started.append(Collector(port=port))
        started[0].wait(2)
        site.stop()

    assert site.run(f"http://127.0.0.1:{port}", come) == Counts(2, 2, 0)
    started[0].close()


def test_a_batch_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE", 0.5)
    site.records(2)

    def lost() -> bool:
        return site.channel.results.failed == 2

    found = site.run(f"http://127.0.0.1:{free_port()}", lambda: wait_for(lost, words="lost spans"), site.stop)
    assert found == Counts(2, 0, 2)


def test_the_end_has_a_deadline(site: Site, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LAST", 0.5)
    monkeypatch.setattr(exporter, "BATCH", 10)
    collector.delay = 30
    site.records(100)
    site.stop()
    began = time.monotonic()
    found = site.run(collector.url)
    assert time.monotonic() - began < 10
    assert found == Counts(100, 0, 100)


def test_the_end_shortens_a_request_under_way(site: Site, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LAST", 0.5)
    collector.delay = 300
    site.records(3)

    def under_way() -> None:
        wait_for(lambda: collector.paths, words="a request")

    assert site.run(collector.url, under_way, site.stop, timeout=600.0) == Counts(3, 0, 3)


def test_what_a_killed_exporter_had_taken_is_lost(site: Site, collector: Collector) -> None:
    counts.write(site.channel.counts, Counts(taken=10, exported=6, failed=1))
    site.stop()
    assert site.run(collector.url) == Counts(10, 6, 4)


def test_records_of_another_version_are_counted(site: Site, collector: Collector) -> None:
    site.channel.offer({"mode": "sideways"})
    site.channel.offer({"mode": "connect"})
    site.records(1)
    site.stop()
    assert site.run(collector.url) == Counts(3, 1, 2)


def test_orders_go_through_memory() -> None:
    plan = OtlpPlan(
        "https://c/v1/traces", (("authorization", Token("Bearer secret-secret")),), "PEM", "db", (("a", "b"), ("host.name", "h"))
    )
    made = orders.orders_for(plan, LogPlan(level="debug", format="text"), {"host.name": "own", "service.version": "1"})
    assert made.resource == {"host.name": "h", "service.version": "1", "service.name": "db", "a": "b"}
    assert made.headers == {"authorization": "Bearer secret-secret"}
    assert "secret" not in repr(made)
    assert orders.read(orders.write(made)) == made
