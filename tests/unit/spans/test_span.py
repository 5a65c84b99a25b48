"""The span of a record: ids, names, attributes, status."""

from __future__ import annotations

from typing import Any

import pytest
from harness.collector import attributes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from stcp_proxy.spans.span import connect_span_id, request_of, span_of, trace_id

CHANNEL = "b2fcea2f82612d55"
RECORD: dict[str, Any] = {
    "mode": "connect",
    "tunnel": "db",
    "channel": CHANNEL,
    "peer": "db-host",
    "client": "127.0.0.1:50000",
    "target": "10.0.0.7:7443",
    "leg": "new",
    "engine": "python",
    "suite": "hybrid-keys",
    "reason": "finished",
    "to_wire": 5,
    "to_plain": 0,
    "seconds": 1.5,
    "ended": 1_700_000_000_000_000_000,
}


def made(**changes: Any) -> tuple[Span, dict[str, Any]]:
    span = span_of(RECORD | changes)
    return span, attributes(span)


def test_both_sides_share_a_trace_and_the_listen_side_has_a_parent() -> None:
    client, _ = made()
    server, _ = made(mode="listen")
    assert client.trace_id.hex() == server.trace_id.hex() == "0000000000000000" + CHANNEL
    assert server.parent_span_id == client.span_id == connect_span_id(CHANNEL)
    assert client.parent_span_id == b""
    assert server.span_id not in (client.span_id, bytes(8))
    assert span_of(RECORD | {"mode": "listen"}).span_id != server.span_id


def test_name_kind_and_times() -> None:
    client, _ = made()
    assert (client.name, client.kind) == ("connect db", Span.SPAN_KIND_CLIENT)
    assert client.end_time_unix_nano - client.start_time_unix_nano == 1_500_000_000
    assert client.end_time_unix_nano == RECORD["ended"]
    server, _ = made(mode="listen")
    assert (server.name, server.kind) == ("listen db", Span.SPAN_KIND_SERVER)


def test_without_a_channel_the_ids_are_random() -> None:
    first, found = made(channel="")
    second, _ = made(channel="")
    assert len({first.trace_id, second.trace_id, first.span_id, second.span_id}) == 4
    assert len(first.trace_id) == 16
    assert len(trace_id("")) == 16
    assert "stcp.channel" not in found
    server, _ = made(channel="", mode="listen")
    assert server.parent_span_id == b""


def test_attributes() -> None:
    _, found = made(service="queue")
    assert found == {
        "network.transport": "tcp",
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 7443,
        "client.address": "127.0.0.1",
        "client.port": 50000,
        "server.address": "10.0.0.7",
        "server.port": 7443,
        "stcp.tunnel": "db",
        "stcp.channel": CHANNEL,
        "stcp.peer": "db-host",
        "stcp.engine": "python",
        "stcp.suite": "hybrid-keys",
        "stcp.leg": "new",
        "stcp.service": "queue",
        "stcp.end_reason": "finished",
        "stcp.bytes_to_wire": 5,
        "stcp.bytes_to_plain": 0,
    }


ADDRESSES = [
    ("connect", {"original": "192.0.2.1:80"}, {"server.address": "192.0.2.1", "server.port": 80, "network.peer.port": 7443}),
    ("connect", {"client": "unix"}, {"client.address": None}),
    ("connect", {"target": "unix:/run/peer.sock"}, {"network.peer.address": "/run/peer.sock", "network.peer.port": None}),
    ("connect", {"target": "[2001:db8::1]:7443"}, {"network.peer.address": "2001:db8::1", "network.peer.port": 7443}),
    ("connect", {"target": "db.example:7443"}, {"server.address": "db.example"}),
    ("connect", {"target": ""}, {"server.address": None, "network.peer.address": None}),
    ("listen", {}, {"network.peer.address": "127.0.0.1", "server.address": "10.0.0.7", "client.port": 50000}),
    ("listen", {"origin": "10.1.1.1:5"}, {"client.address": "10.1.1.1", "client.port": 5, "network.peer.port": 50000}),
    ("listen", {"target": "", "original": "192.0.2.9:9"}, {"server.address": "192.0.2.9"}),
]


@pytest.mark.parametrize(("mode", "changes", "wanted"), ADDRESSES)
def test_addresses(mode: str, changes: dict[str, Any], wanted: dict[str, Any]) -> None:
    _, found = made(mode=mode, **changes)
    assert {name: found.get(name) for name in wanted} == wanted


def test_a_failure() -> None:
    span, found = made(failed=True, why="cannot reach 10.0.0.7:7443", reason="unreachable", code="target_unreachable")
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "cannot reach 10.0.0.7:7443")
    assert found["error.type"] == "unreachable"
    assert found["stcp.wire_code"] == "target_unreachable"
    span, found = made()
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert "error.type" not in found


def test_foreign_text_is_shown_as_the_log_shows_it() -> None:
    key = "stcp-key:" + "A" * 43 + "="
    span, found = made(failed=True, why=f"the peer said {key}\nand more", peer="a\x1b[31mb")
    assert key not in span.status.message
    assert span.status.message == "the peer said …\\nand more"
    assert found["stcp.peer"] == "a\\x1b[31mb"


def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    span, _ = made(seconds=5.0, ended=1)
    assert span.start_time_unix_nano == 0


def test_the_request_has_the_resource() -> None:
    request = ExportTraceServiceRequest.FromString(request_of([span_of(RECORD)], {"service.name": "x", "host.name": "h"}))
    (of_one,) = request.resource_spans
    assert attributes(of_one.resource) == {"service.name": "x", "host.name": "h"}
    assert of_one.scope_spans[0].scope.name == "stcp_proxy"
    assert [span.name for span in of_one.scope_spans[0].spans] == ["connect db"]
