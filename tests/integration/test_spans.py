"""Spans of connections, sent to a collector of OpenTelemetry."""

from __future__ import annotations

import time
from pathlib import Path

from harness.collector import Collector, attributes
from harness.files import FileProxy
from harness.sockets import Target, connect, end_of, free_port
from harness.span_pair import Pair
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def test_two_proxies_make_one_trace(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url, "attributes": {"deployment.environment.name": "test"}})
    pair.talk()
    by_kind = {span.kind: span for span in collector.wait(2)}
    pair.stop()
    client, server = by_kind[Span.SPAN_KIND_CLIENT], by_kind[Span.SPAN_KIND_SERVER]
    line = pair.listen.log("connection closed")[0]
    assert client.trace_id == server.trace_id == bytes(8) + bytes.fromhex(line["channel"])
    assert server.parent_span_id == client.span_id
    assert not client.parent_span_id
    assert (client.name, server.name) == ("connect out", "listen in")
    found = attributes(server)
    assert found["stcp.peer"] == "app"
    assert found["stcp.channel"] == line["channel"]
    assert (found["stcp.bytes_to_wire"], found["stcp.bytes_to_plain"]) == (5, 5)
    assert found["stcp.suite"] == "hybrid-keys"
    assert found["stcp.engine"] == line["engine"]
    assert found["stcp.end_reason"] == line["reason"]
    assert (found["network.peer.address"], found["network.transport"]) == ("127.0.0.1", "tcp")
    assert f"{found['server.address']}:{found['server.port']}" == echo.to
    assert client.start_time_unix_nano <= server.start_time_unix_nano < server.end_time_unix_nano
    assert {span.status.code for span in (client, server)} == {Status.STATUS_CODE_UNSET}
    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "stcp-proxy"
    assert resource["deployment.environment.name"] == "test"
    assert set(collector.paths) == {"/v1/traces"}


def test_a_failure_is_the_status_of_both_spans(tmp_path: Path, collector: Collector) -> None:
    pair = Pair(tmp_path, f"127.0.0.1:{free_port()}", {"endpoint": collector.url})
    with connect(pair.connect.address_of("out")) as sock:
        end_of(sock)
    by_name = {span.name: span for span in collector.wait(2)}
    pair.stop()
    for side, name in ((pair.connect, "connect out"), (pair.listen, "listen in")):
        line, span = side.log("connection refused")[0], by_name[name]
        assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, line["why"])
        found = attributes(span)
        assert found["stcp.wire_code"] == "target_refused"
        assert found["error.type"] == found["stcp.end_reason"] == line["reason"]


def test_strangers_and_health_checks_make_no_span(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    with connect(pair.listen.address_of("in")) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        end_of(sock)
    connect(pair.listen.address_of("in")).close()
    pair.listen.wait_log("connection refused")
    pair.talk()
    pair.stop()
    assert sorted(span.name for span in collector.spans) == ["connect out", "listen in"]


def test_a_peer_that_cannot_be_reached_makes_a_span_of_its_own(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    pair.listen.stop()
    with connect(pair.connect.address_of("out")) as sock:
        end_of(sock)
    span = collector.wait(1)[0]
    pair.stop()
    assert len(span.trace_id) == 16
    assert any(span.trace_id[:8])
    assert not span.parent_span_id
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert "stcp.channel" not in attributes(span)


def test_both_sides_choose_the_same_connections(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url, "sample": 0.5})
    for _ in range(40):
        pair.talk()
    pair.stop()
    traces = {name: {span.trace_id for span in collector.spans if span.name == name} for name in ("connect out", "listen in")}
    assert traces["connect out"] == traces["listen in"]
    assert 5 < len(traces["listen in"]) < 35  # outside once in two million times


def test_each_connection_over_a_kept_leg_is_a_trace(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    for _ in range(3):
        pair.talk()
        pair.listen.wait_log("connection closed")
    pair.stop()
    spans = collector.spans
    assert len({span.trace_id for span in spans}) == 3
    assert {attributes(span)["stcp.leg"] for span in spans} == {"new", "kept"}


def test_the_last_spans_arrive_after_the_stop(tmp_path: Path, collector: Collector, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, {"endpoint": collector.url})
    pair.talk()
    began = time.monotonic()
    pair.stop()
    assert len(collector.spans) == 2
    assert time.monotonic() - began < 10


def test_without_the_setting_nothing_is_started(tmp_path: Path, echo: Target) -> None:
    pair = Pair(tmp_path, echo.to, None)
    pair.talk()
    for side in (pair.connect, pair.listen):
        assert children(side) == []
    pair.stop()


def children(side: FileProxy) -> list[int]:
    """The processes that a proxy has started."""
    tasks = Path(f"/proc/{side.pid}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
